/**
 * Turns the events of node:test into a report, short where all is well and long where it is not.
 *
 * 1. One line for each test file, with the number of its tests and its time.
 * 2. A failed test prints its name and stack at once; what its file wrote to stdout and stderr
 *    follows. Files that pass stay silent, but for what a test says with `t.diagnostic`.
 * 3. The closing lines are those of node:test (`# tests 12`, `# pass 12`, ...).
 *
 * node:test reports files in order: a later file's events are held back until all files before it
 * have ended. Only a file's own end (`test:complete`) is told early.
 */
import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

const CLOSING_LINE = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/;
/** Lines of a stack that are the runner's, not ours. */
const RUNNER_FRAME = /\n +at [^\n]*\(?node:[^\n]*/g;
/** Of what a failed file wrote, so many lines at the end are shown. */
const OUTPUT_LINES_MAX = 200;

interface FileState {
  count: number;
  skipped: number;
  durationMs: number | undefined;
  passed: boolean;
  written: boolean;
  output: string;
}

interface FailureError {
  readonly cause?: unknown;
  readonly failureType?: string;
  readonly message: string;
}

class Report {
  readonly #files = new Map<string, FileState>();
  readonly #failures: string[] = [];
  /** Names of the tests under way, by nesting. */
  readonly #names: string[] = [];
  #current: string | undefined;

  /** Text to print for this event. */
  take(event: TestEvent): string {
    switch (event.type) {
      case 'test:start':
        this.#names.length = event.data.nesting;
        this.#names[event.data.nesting] = event.data.name;
        return '';
      case 'test:complete':
        return this.#takeComplete(event.data);
      case 'test:pass':
      case 'test:fail':
        return this.#takeResult(event.type === 'test:pass', event.data);
      case 'test:stdout':
      case 'test:stderr':
        this.#stateOf(event.data.file).output += event.data.message;
        return '';
      case 'test:diagnostic':
        if (event.data.nesting === 0 && CLOSING_LINE.test(event.data.message)) {
          return this.#close(`# ${event.data.message}\n`);
        }
        return `      ${event.data.message.replaceAll('\n', '\n      ')}\n`;
      default:
        return '';
    }
  }

  /** Before the first of the closing lines, the failed tests are named once more. */
  #close(line: string): string {
    const last = this.#flush(undefined);
    const failed = this.#failures.splice(0).map((failure) => `  ${failure}\n`);
    return last + (failed.length === 0 ? '' : `\nFailed:\n${failed.join('')}\n`) + line;
  }

  #stateOf(path: string | undefined): FileState {
    const key = toKey(path);
    let state = this.#files.get(key);
    if (state === undefined) {
      state = {
        count: 0,
        skipped: 0,
        durationMs: undefined,
        passed: true,
        written: false,
        output: '',
      };
      this.#files.set(key, state);
    }
    return state;
  }

  #takeComplete(data: ResultData): string {
    if (!isWholeFile(data)) return '';
    const state = this.#stateOf(data.entryFile ?? data.file);
    state.durationMs = data.details.duration_ms;
    state.passed = data.details.passed !== false;
    // With results already here, this file is the one whose turn it is: nothing more will come.
    const key = toKey(data.entryFile ?? data.file);
    return state.count > 0 && key === this.#current ? this.#write(key, state) : '';
  }

  #takeResult(passed: boolean, data: ResultData): string {
    const key = toKey(data.entryFile ?? data.file);
    const earlier = key === this.#current ? '' : this.#flush(key);
    const state = this.#stateOf(data.entryFile ?? data.file);
    const error = data.details.error;
    const whole = isWholeFile(data);
    // A parent fails because a test in it has failed: that one is told already.
    const told = error?.failureType === 'subtestsFailed';
    if (!whole && data.details.type !== 'suite') state.count++;
    if (data.skip !== undefined && data.skip !== false) state.skipped++;
    if (passed || told) return earlier;
    state.passed = false;
    const names = whole ? ['its process'] : this.#names.slice(0, data.nesting + 1);
    const title = [key, ...names].join(' > ');
    this.#failures.push(title);
    return `${earlier}FAIL  ${title}\n${indent(describeError(error))}\n`;
  }

  /** Writes the line of the file that was current; `next` becomes current. */
  #flush(next: string | undefined): string {
    const key = this.#current;
    this.#current = next;
    const state = key === undefined ? undefined : this.#files.get(key);
    return key === undefined || state === undefined ? '' : this.#write(key, state);
  }

  #write(key: string, state: FileState): string {
    if (state.written) return '';
    state.written = true;
    const mark = state.passed ? 'ok  ' : 'FAIL';
    const tests = `${state.count} ${state.count === 1 ? 'test' : 'tests'}`;
    const skipped = state.skipped === 0 ? '' : `, ${state.skipped} skipped`;
    const { durationMs } = state;
    const seconds = durationMs === undefined ? '' : `${(durationMs / 1000).toFixed(1)} s`;
    const line = `${mark}  ${key.padEnd(52)} ${seconds.padStart(8)}  ${tests}${skipped}\n`;
    if (state.passed || state.output === '') return line;
    const lines = state.output.trimEnd().split('\n').slice(-OUTPUT_LINES_MAX);
    return `${line}      It wrote:\n${indent(lines.join('\n'))}\n`;
  }
}

interface ResultData {
  readonly name: string;
  readonly nesting: number;
  /** Where the test is written. */
  readonly file?: string | undefined;
  /** The file that was run; Node 20 does not tell it, so a contract suite goes by its own name. */
  readonly entryFile?: string;
  readonly skip?: string | boolean | undefined;
  readonly details: {
    readonly duration_ms: number;
    readonly type?: string | undefined;
    readonly passed?: boolean;
    readonly error?: FailureError;
  };
}

function toKey(path: string | undefined): string {
  return path === undefined ? '(no file)' : relative('.', path);
}

/** node:test reports a file itself as a test that bears the file's name. */
function isWholeFile(data: ResultData): boolean {
  return (
    data.nesting === 0 &&
    data.file !== undefined &&
    relative('.', data.name) === relative('.', data.file)
  );
}

function describeError(error: FailureError | undefined): string {
  if (error === undefined) return 'failed without an error';
  const lines: string[] = [];
  let cause: unknown = error.cause ?? error.message;
  // An error tells what it came from by `cause`; four steps are more than anybody reads.
  for (let depth = 0; depth < 4 && cause !== undefined; depth++) {
    const from = depth === 0 ? '' : 'because of: ';
    if (cause instanceof Error) {
      lines.push(from + (cause.stack ?? cause.message).replaceAll(RUNNER_FRAME, ''));
      cause = cause.cause;
    } else {
      lines.push(from + (typeof cause === 'string' ? cause : inspect(cause)));
      cause = undefined;
    }
  }
  return lines.join('\n');
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `      ${line}`)
    .join('\n');
}

/** For `run().compose()`. */
export async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const summary = new Report();
  for await (const event of source) yield summary.take(event);
}
