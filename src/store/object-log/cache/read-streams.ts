/**
 * Tells who reads one behind the other, so that more can be fetched than was asked for: from the
 * second read of a stream on up to the end of 128 KiB, from 1 MiB on the rest of the record.
 */
import { SEGMENT_BLOCKS } from '../../../base/units.js';
import { RECORD_BLOCKS_MAX } from '../../../layout/log-record.js';

const AHEAD_BLOCKS = 32;
const WHOLE_AFTER_BLOCKS = 256;
const STREAMS_MAX = 32;

export class ReadStreams {
  /** Blocks read so far, by the VBN that would come next; the oldest first. */
  readonly #streams = new Map<number, number>();

  /**
   * Notes a read.
   * @returns the VBN behind the last that is worth fetching with it
   */
  noteRead(vbn: number, count: number): { readonly end: number; readonly isStream: boolean } {
    const end = vbn + count;
    const before = this.#streams.get(vbn);
    this.#streams.delete(vbn);
    const length = (before ?? 0) + count;
    this.#streams.set(end, length);
    const [oldest] = this.#streams.keys();
    if (this.#streams.size > STREAMS_MAX && oldest !== undefined) this.#streams.delete(oldest);
    const record = Math.floor((end - 1) / SEGMENT_BLOCKS) * SEGMENT_BLOCKS;
    if (length >= WHOLE_AFTER_BLOCKS) {
      return { end: Math.max(end, record + RECORD_BLOCKS_MAX), isStream: true };
    }
    if (before === undefined) return { end, isStream: false };
    const ahead = Math.ceil((end + 1) / AHEAD_BLOCKS) * AHEAD_BLOCKS;
    return { end: Math.max(end, Math.min(ahead, record + RECORD_BLOCKS_MAX)), isStream: true };
  }
}
