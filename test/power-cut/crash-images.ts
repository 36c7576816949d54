/**
 * What a device may hold after a power cut at one line of a trace: what was durable, and of each
 * sector either that or one of the writes that were on their way, whichever the dice say.
 *
 * A write is durable when its own call has ended and the descriptor was opened with O_DSYNC, or
 * when a sync has ended that began after its end.
 */
import type { Random } from '../../src/env/random.js';
import { SparseBytes } from '../../src/env/sparse-bytes.js';
import { SECTOR_BYTES } from './story.js';
import type { Call, Trace } from './trace.js';

const CHUNK_BYTES = 65_536;

export class CrashImages {
  readonly #events: { readonly line: number; readonly call: Call; readonly isEnd: boolean }[] = [];
  readonly #durable = new SparseBytes(CHUNK_BYTES);
  /** Begun, and not durable yet; in order of their beginning. */
  readonly #pending = new Set<Call>();
  /** Writes over what was not durable yet: the rule is that nothing is written over at all. */
  readonly faults: string[] = [];
  #next = 0;

  constructor({ calls }: Trace) {
    for (const call of calls) {
      this.#events.push({ line: call.begin, call, isEnd: false });
      if (call.end !== Number.POSITIVE_INFINITY) {
        this.#events.push({ line: call.end, call, isEnd: true });
      }
    }
    this.#events.sort((a, b) => a.line - b.line || Number(a.isEnd) - Number(b.isEnd));
  }

  /** Lines of the trace at which something began or ended. */
  get lines(): number[] {
    return [...new Set(this.#events.map(({ line }) => line))];
  }

  /** The device after a cut behind this line; lines must come in order. */
  at(line: number, random: Random): SparseBytes {
    for (let event = this.#events[this.#next]; event !== undefined && event.line <= line; ) {
      this.#take(event.call, event.isEnd);
      event = this.#events[++this.#next];
    }
    const image = this.#durable.clone();
    // Some cuts keep nearly all, some nearly nothing.
    const kept = random.nextFraction() ** 2;
    const isKept = random.chance(0.5) ? kept : 1 - kept;
    for (const { offset, bytes } of this.#pending) {
      for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
        if (!random.chance(isKept)) continue;
        image.write(offset + at, bytes.subarray(at, at + SECTOR_BYTES));
      }
    }
    return image;
  }

  #take(call: Call, isEnd: boolean): void {
    if (!isEnd) {
      if (call.kind === 'write') this.#begin(call);
    } else if (call.kind === 'sync') {
      for (const write of this.#pending) if (write.end < call.begin) this.#settle(write);
    } else if (call.isDurable) {
      this.#settle(call);
    }
  }

  #begin(write: Call): void {
    const end = write.offset + write.bytes.length;
    for (const other of this.#pending) {
      if (other.offset >= end || write.offset >= other.offset + other.bytes.length) continue;
      this.faults.push(
        `line ${write.begin}: bytes ${write.offset} to ${end} are written again, and those of ` +
          `line ${other.begin} are not durable yet`,
      );
    }
    this.#pending.add(write);
  }

  #settle(write: Call): void {
    this.#durable.write(write.offset, write.bytes);
    this.#pending.delete(write);
  }
}
