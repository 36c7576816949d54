/**
 * What a command writes: results to the standard output, all else to the standard error.
 *
 * 1. A reader that has gone is a quiet end (`broken-pipe`), not an error that is told.
 * 2. Colours are for terminals, and not with NO_COLOR (no-color.org) or TERM=dumb.
 */
import { brokenPipe, isSystemError } from './failure.js';

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow';

const STYLES: Readonly<Record<Style, number>> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 };

/** What Output needs of a stream of the process. */
export interface Sink {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string | Uint8Array, done: (error?: unknown) => void): boolean;
}

export interface OutputOptions {
  readonly out: Sink;
  readonly error: Sink;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export class Output {
  readonly #out: Sink;
  readonly #error: Sink;
  readonly #hasColours: boolean;
  /** The standard error is a terminal: a line there can be written again. */
  readonly isErrorTerminal: boolean;
  readonly isTerminal: boolean;
  /** A line that is not ended yet, which is progress. */
  #openLine = '';

  constructor({ out, error, environment }: OutputOptions) {
    this.#out = out;
    this.#error = error;
    const isPlain = (environment.NO_COLOR ?? '') !== '' || environment.TERM === 'dumb';
    this.isTerminal = out.isTTY === true;
    this.#hasColours = this.isTerminal && !isPlain;
    this.isErrorTerminal = error.isTTY === true && environment.TERM !== 'dumb';
  }

  get errorColumns(): number {
    // Some terminals do not say, and count as 0 wide.
    const { columns = 0 } = this.#error;
    return columns > 0 ? columns : 80;
  }

  /** The text in a style, where the standard output has styles. */
  style(style: Style, text: string): string {
    if (!this.#hasColours || text === '') return text;
    return `\x1b[${STYLES[style]}m${text}\x1b[0m`;
  }

  /** A line, or several. @throws {CommandError} broken-pipe */
  print(text: string): Promise<void> {
    return this.printBytes(`${text}\n`);
  }

  /** @throws {CommandError} broken-pipe */
  printBytes(bytes: Uint8Array | string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#out.write(bytes, (error) => {
        if (!(error instanceof Error)) resolve();
        else reject(isSystemError(error, 'EPIPE') ? brokenPipe() : error);
      });
    });
  }

  /** One JSON document. */
  printJson(value: unknown): Promise<void> {
    return this.print(JSON.stringify(value, undefined, 2));
  }

  /** A line for people, on the standard error. */
  tell(text: string): void {
    this.showOpenLine('');
    this.#tell(`${text}\n`);
  }

  /** Replaces the line that is not ended; only where the standard error is a terminal. */
  showOpenLine(text: string): void {
    if (text === '' && this.#openLine === '') return;
    this.#tell(`\r\x1b[K${text}`);
    this.#openLine = text;
  }

  #tell(text: string): void {
    // Nobody may be there to read it.
    this.#error.write(text, () => undefined);
  }
}
