/**
 * What a command is: a row of the table from which the parser, the help texts, the completions and
 * the test of docs/CLI.md are made.
 */
import type { ApiClient } from './api-client.js';
import type { Output } from './output.js';
import type { Progress } from './progress.js';

/** What a shell may offer in a place. */
export type Completes = 'any-name' | 'vdisk' | 'snapshot' | 'file' | 'nothing';

export interface ArgumentRow {
  /** As help texts write it: VDISK. */
  readonly name: string;
  readonly summary: string;
  readonly completes: Completes;
  readonly isOptional?: true;
  /** One or more; the last of its command. */
  readonly isMany?: true;
  readonly choices?: readonly string[];
  /** @throws {InvalidArgumentError} */
  readonly parse?: (text: string) => unknown;
}

export interface FlagRow {
  /** Without the dashes. */
  readonly name: string;
  readonly short?: string;
  readonly summary: string;
  /** What stands behind it: SIZE; undefined for a flag without a value. */
  readonly takes?: string | undefined;
  readonly completes?: Completes;
  readonly choices?: readonly string[];
  readonly fallback?: string;
  readonly isRequired?: true;
  /** More than once gives a list. */
  readonly isList?: true;
  /** @throws {InvalidArgumentError} */
  readonly parse?: (text: string) => unknown;
}

export interface CommandRow {
  readonly name: string;
  readonly summary: string;
  /** Behind the name in the usage line: NAME --size SIZE. */
  readonly usage: string;
  readonly details?: string;
  readonly arguments: readonly ArgumentRow[];
  readonly flags: readonly FlagRow[];
  readonly examples: readonly string[];
  /** @returns the exit code, if it is another one than 0 */
  readonly run: (context: Context, input: Input) => Promise<number | undefined>;
}

/** What a command was given. The rows have checked it. */
export interface Input {
  readonly arguments: readonly unknown[];
  /** By name, in camel case. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** Everything behind the program's name but the command's own. */
  readonly raw: readonly string[];
}

export interface Context {
  readonly api: ApiClient;
  readonly output: Output;
  /** `--json`: one JSON document on the standard output. */
  readonly isJson: boolean;
  /** Aborts when the process is to end. */
  readonly signal: AbortSignal;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly nowMs: () => number;
  /** Shows the progress of something, unless `--quiet`. */
  progress(label: string): Progress;
  /** A line for people, unless `--quiet` or `--json`. */
  say(text: string): Promise<void>;
}
