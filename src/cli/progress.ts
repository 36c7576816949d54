/**
 * Progress of a long act on the standard error.
 *
 * 1. On a terminal: one line with a bar, written again at most ten times a second, and gone at the
 *    end. Elsewhere: a line every five seconds, so that a log stays readable.
 * 2. What is over within a second shows nothing.
 */
import { formatBytes } from '../base/units.js';
import { formatDuration, formatRate, formatShare } from './figures.js';
import type { Output } from './output.js';

const FIRST_MS = 1000;
const BAR_MS = 100;
const LINE_MS = 5000;
/** The rate is that of the last so many milliseconds. */
const RATE_MS = 5000;
const BAR_COLUMNS = 24;
/** With less room the bar is left out. */
const COLUMNS_MIN = 70;

interface Sample {
  readonly atMs: number;
  readonly doneBytes: number;
}

export interface ProgressState {
  readonly doneBytes: number;
  /** Undefined: nobody knows. */
  readonly totalBytes: number | undefined;
  /** If somebody else has measured it. */
  readonly rateBytesPerSecond?: number;
  readonly etaSeconds?: number | undefined;
  /** Said behind the figures: why it pauses. */
  readonly note?: string | undefined;
}

export class Progress {
  readonly #label: string;
  readonly #output: Output | undefined;
  readonly #nowMs: () => number;
  readonly #samples: Sample[] = [];
  readonly #startMs: number;
  #shownMs: number;

  /** @param output  undefined: nothing is shown */
  constructor(label: string, output: Output | undefined, nowMs: () => number) {
    this.#label = label;
    this.#output = output;
    this.#nowMs = nowMs;
    this.#startMs = nowMs();
    const everyMs = output?.isErrorTerminal === true ? BAR_MS : LINE_MS;
    this.#shownMs = this.#startMs + Math.max(FIRST_MS, everyMs) - everyMs;
  }

  update(state: ProgressState): void {
    const output = this.#output;
    if (output === undefined) return;
    const nowMs = this.#nowMs();
    this.#sample(nowMs, state.doneBytes);
    if (nowMs - this.#shownMs < (output.isErrorTerminal ? BAR_MS : LINE_MS)) return;
    this.#shownMs = nowMs;
    const text = this.#describe(state, output.isErrorTerminal ? output.errorColumns : 0);
    if (output.isErrorTerminal) output.showOpenLine(text);
    else output.tell(text);
  }

  end(): void {
    if (this.#output?.isErrorTerminal === true) this.#output.showOpenLine('');
  }

  get seconds(): number {
    return (this.#nowMs() - this.#startMs) / 1000;
  }

  #sample(nowMs: number, doneBytes: number): void {
    this.#samples.push({ atMs: nowMs, doneBytes });
    for (;;) {
      const second = this.#samples[1];
      if (second === undefined || nowMs - second.atMs < RATE_MS) return;
      this.#samples.shift();
    }
  }

  #rate(): number {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.atMs <= first.atMs) return 0;
    return Math.max(0, ((last.doneBytes - first.doneBytes) * 1000) / (last.atMs - first.atMs));
  }

  #describe(state: ProgressState, columns: number): string {
    const { doneBytes, totalBytes, note } = state;
    const rate = state.rateBytesPerSecond ?? this.#rate();
    const parts = [formatBytes(doneBytes)];
    if (totalBytes !== undefined) {
      parts[0] = `${formatShare(doneBytes, totalBytes)}, ${parts[0]} of ${formatBytes(totalBytes)}`;
    }
    if (note === undefined) {
      parts.push(formatRate(rate));
      const restBytes = totalBytes === undefined ? 0 : totalBytes - doneBytes;
      const seconds = state.etaSeconds ?? (rate > 0 ? restBytes / rate : undefined);
      if (restBytes > 0 && seconds !== undefined) parts.push(`ETA ${formatDuration(seconds)}`);
    } else {
      parts.push(note);
    }
    const figures = parts.join(', ');
    const hasBar = totalBytes !== undefined && columns >= COLUMNS_MIN;
    const bar = hasBar ? `${formatBar(doneBytes, totalBytes)} ` : '';
    const line = `${this.#label}: ${bar}${figures}`;
    return columns > 0 ? line.slice(0, columns - 1) : line;
  }
}

function formatBar(done: number, total: number): string {
  const filled = total <= 0 ? BAR_COLUMNS : Math.floor(Math.min(1, done / total) * BAR_COLUMNS);
  return `[${'#'.repeat(filled)}${'-'.repeat(BAR_COLUMNS - filled)}]`;
}
