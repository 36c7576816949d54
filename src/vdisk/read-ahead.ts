/**
 * Reading ahead of a client that reads one block behind the other, where the medium is far away: an
 * object store answers many GETs at once several times as fast as one after the other.
 *
 * 1. It follows the vdisk, not the medium: what comes next may stand anywhere, in a backing store,
 *    too. The medium is told which VBNs will be read; it decides what to fetch, and what to keep.
 * 2. It is a hint. Whatever is wrong with it is found, and told, by the read itself.
 */
import { BLOCK_BYTES, MIB, SEGMENT_BLOCKS } from '../base/units.js';
import type { Engine } from '../store/engine.js';
import { type BlockSource, SOURCE_MISS, SOURCE_VBN } from './block-source.js';
import type { Reader, ReadTarget } from './reader.js';

/** So far ahead of all streams together: six full records, that a read finds GETs left. */
const HORIZON_BLOCKS = (24 * MIB) / BLOCK_BYTES;
/** One stream looks so far ahead at least; it goes on by as much at a time. */
const STEP_BLOCKS = (4 * MIB) / BLOCK_BYTES;
/** What has read so much in a row is a stream. */
const STREAM_BLOCKS = MIB / BLOCK_BYTES;
/** Requests of a client overtake each other by so much. */
const DISORDER_BLOCKS = (8 * MIB) / BLOCK_BYTES;
/** Shorter runs of VBNs are not worth a GET before they are asked for. */
const RUN_BLOCKS_MIN = 16;
/** A stream that was not seen for so many reads has ended. */
const FORGOTTEN_READS = 256;
const STREAMS_MAX = 16;

interface Stream {
  readonly target: ReadTarget;
  /** Behind the last block that was read. */
  next: number;
  /** Behind the last block that was looked at. */
  ahead: number;
  blocks: number;
  lastRead: number;
}

export class ReadAhead {
  readonly #engine: Engine;
  readonly #reader: Pick<Reader, 'loadAll'>;
  readonly #source: BlockSource;
  #streams: Stream[] = [];
  #reads = 0;

  constructor(engine: Engine, reader: Pick<Reader, 'loadAll'>, source: BlockSource) {
    this.#engine = engine;
    this.#reader = reader;
    this.#source = source;
  }

  /** The client reads these blocks. */
  note(target: ReadTarget, fbn: number, count: number): void {
    const end = fbn + count;
    this.#reads++;
    const stream = this.#streamOf(target, fbn);
    stream.lastRead = this.#reads;
    // What was overtaken, or is read again, does not make it longer.
    if (end <= stream.next) return;
    stream.blocks += end - stream.next;
    stream.next = end;
    stream.ahead = Math.max(stream.ahead, end);
    if (stream.blocks < STREAM_BLOCKS) return;
    const horizon = Math.max(STEP_BLOCKS, Math.floor(HORIZON_BLOCKS / this.#streams.length));
    while (stream.ahead + STEP_BLOCKS <= stream.next + horizon) if (!this.#look(stream)) return;
  }

  #streamOf(target: ReadTarget, fbn: number): Stream {
    const found = this.#streams.find(
      (each) =>
        each.target === target &&
        fbn >= each.next - DISORDER_BLOCKS &&
        fbn <= Math.min(each.ahead, each.next + DISORDER_BLOCKS),
    );
    if (found !== undefined) return found;
    const stream = { target, next: fbn, ahead: fbn, blocks: 0, lastRead: this.#reads };
    const oldest = this.#reads - FORGOTTEN_READS;
    this.#streams = this.#streams
      .filter(({ lastRead }) => lastRead > oldest)
      .slice(1 - STREAMS_MAX);
    this.#streams.push(stream);
    return stream;
  }

  /** Looks a step further, and to the end of the run that it meets there; false: not now. */
  #look(stream: Stream): boolean {
    const source = this.#source;
    const tree = stream.target.head;
    const fbnEnd = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
    const wanted = Math.min(fbnEnd, stream.ahead + STEP_BLOCKS);
    let first = -1;
    let end = -1;
    source.begin();
    for (; stream.ahead < fbnEnd; stream.ahead++) {
      const found = source.find(tree, stream.ahead);
      const follows = found === SOURCE_VBN && source.vbn === end && end % SEGMENT_BLOCKS !== 0;
      if (!follows && stream.ahead >= wanted) break;
      if (found === SOURCE_MISS) {
        this.#load();
        break;
      }
      if (found !== SOURCE_VBN) continue;
      if (!follows) {
        this.#tell(first, end);
        first = source.vbn;
      }
      end = source.vbn + 1;
    }
    this.#tell(first, end);
    return stream.ahead >= wanted && wanted < fbnEnd;
  }

  #tell(first: number, end: number): void {
    if (end - first >= RUN_BLOCKS_MIN) this.#engine.medium.readAhead(first, end - first);
  }

  /** The next read of the stream goes on from here. */
  #load(): void {
    this.#reader.loadAll(this.#source.missing.slice()).catch(() => undefined);
  }
}
