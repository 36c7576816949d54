/**
 * Tells the main job as a story: chapters, lines, commands with what they said, and tasks with the
 * time they took. On a terminal a task shows its progress in place, and there are colours;
 * elsewhere neither.
 */
import { formatBytes } from '../../src/base/units.js';

const WHAT_COLUMNS = 46;

export class Story {
  readonly isTerminal = process.stdout.isTTY && process.env.TERM !== 'dumb';
  readonly #hasColours = this.isTerminal && (process.env.NO_COLOR ?? '') === '';
  readonly #startMs = performance.now();
  #chapters = 0;

  title(text: string, detail: string): void {
    this.#print(`${this.#paint('1;32', text)}  ${this.#paint('2', detail)}`);
  }

  chapter(text: string): void {
    this.#print(`\n${this.#paint('1', `${++this.#chapters}. ${text}`)}`);
  }

  /** A heading that is no step. */
  heading(text: string): void {
    this.#print(`\n${this.#paint('1', text)}`);
  }

  say(text: string): void {
    for (const line of text.split('\n')) this.#print(`   ${line}`.trimEnd());
  }

  /** A command that is run, as a reader can type it. */
  command(line: string): void {
    this.#print(`   ${this.#paint('36', `$ ${line}`)}`);
  }

  /** What a command has said. */
  said(text: string): void {
    if (text.trim() === '') return;
    for (const line of text.trimEnd().split('\n')) this.#print(`     ${line}`.trimEnd());
  }

  /** What came of a command: figures, and the next thing to know. */
  figures(text: string): void {
    this.#print(`     ${this.#paint('2', `-> ${text}`)}`);
  }

  /** Does the work; prints what it was, what came of it, and the time it took. */
  async task<T>(
    what: string,
    work: (progress: (text: string) => void) => Promise<T>,
    outcome: (result: T, seconds: number) => string,
  ): Promise<T> {
    const start = performance.now();
    this.#progress(what, '');
    try {
      const result = await work((text) => this.#progress(what, text));
      const ms = performance.now() - start;
      this.#clearLine();
      const took = `${this.#paint('2', formatMs(ms).padStart(8))}`;
      this.#print(`   ${what.padEnd(WHAT_COLUMNS)} ${took}  ${outcome(result, ms / 1000)}`);
      return result;
    } catch (error) {
      this.#clearLine();
      this.#print(`   ${what.padEnd(WHAT_COLUMNS)} ${this.#paint('31', '  FAILED')}`);
      throw error;
    }
  }

  /** Prints the verdict, and gives it back. */
  proof(isProven: boolean, text: string): boolean {
    const mark = isProven ? this.#paint('32', 'proven') : this.#paint('1;31', 'REFUTED');
    this.#print(`   ${mark}  ${text}`);
    return isProven;
  }

  get seconds(): number {
    return (performance.now() - this.#startMs) / 1000;
  }

  #progress(what: string, text: string): void {
    if (!this.isTerminal) return;
    this.#clearLine();
    process.stdout.write(`   ${what.padEnd(WHAT_COLUMNS)} ${this.#paint('2', text)}`);
  }

  #clearLine(): void {
    if (this.isTerminal) process.stdout.write('\r\u001b[K');
  }

  #paint(code: string, text: string): string {
    return this.#hasColours ? `\u001b[${code}m${text}\u001b[0m` : text;
  }

  #print(line: string): void {
    process.stdout.write(`${line}\n`);
  }
}

export function formatMs(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export function formatRate(bytes: number, seconds: number): string {
  return `${formatBytes(bytes)}, ${(bytes / 1e6 / Math.max(seconds, 1e-6)).toFixed(0)} MB/s`;
}
