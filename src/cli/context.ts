/** What a command works with, from the global flags, the environment and the process. */

import { findApiAddress, readToken } from './api-address.js';
import { ApiClient } from './api-client.js';
import type { Context } from './command-table.js';
import type { Output } from './output.js';
import { Progress } from './progress.js';

export interface GlobalFlags {
  readonly api?: string;
  readonly tokenFile?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export interface ContextSources {
  readonly flags: GlobalFlags;
  readonly output: Output;
  /** Called when something begins that has to be ended well. */
  readonly interruptions: () => AbortSignal;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly userId: number;
  readonly nowMs: () => number;
}

export class CommandContext implements Context {
  readonly #sources: ContextSources;
  #api: ApiClient | undefined;
  #signal: AbortSignal | undefined;

  constructor(sources: ContextSources) {
    this.#sources = sources;
  }

  get output(): Output {
    return this.#sources.output;
  }

  get isJson(): boolean {
    return this.#sources.flags.json === true;
  }

  get signal(): AbortSignal {
    this.#signal ??= this.#sources.interruptions();
    return this.#signal;
  }

  get environment(): ContextSources['environment'] {
    return this.#sources.environment;
  }

  get nowMs(): () => number {
    return this.#sources.nowMs;
  }

  get api(): ApiClient {
    if (this.#api === undefined) {
      const { flags, environment, userId } = this.#sources;
      const address = findApiAddress({ given: flags.api, environment, userId });
      const token = readToken(flags.tokenFile ?? environment.KEIKI_TOKEN_FILE);
      this.#api = new ApiClient({ address, token, signal: this.signal });
    }
    return this.#api;
  }

  progress(label: string): Progress {
    const { flags, output, nowMs } = this.#sources;
    return new Progress(label, flags.quiet === true ? undefined : output, nowMs);
  }

  async say(text: string): Promise<void> {
    const { flags, output } = this.#sources;
    if (flags.quiet !== true && flags.json !== true) await output.print(text);
  }

  close(): void {
    this.#api?.close();
  }
}
