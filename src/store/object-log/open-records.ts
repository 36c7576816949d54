/** The records that are being filled, one of each kind; and how they leave for the chain. */
import type { LogEntry } from '../../layout/log-entry.js';
import type { BlockTag, TagKind } from '../../layout/log-record.js';
import { SEGMENT_DATA, SEGMENT_META } from '../../layout/usage-entry.js';
import type { VbnSet } from '../vbn-set.js';
import type { OpenRecord } from './open-record.js';
import type { RecordChain } from './record-chain.js';
import type { RecordLedger } from './record-ledger.js';

export interface OpenRecordsPlace {
  readonly chain: RecordChain;
  readonly ledger: RecordLedger;
  /** Blocks that are in a record and in no tree yet. */
  readonly inFlight: VbnSet;
  readonly currentCp: () => number;
}

export class OpenRecords {
  readonly #place: OpenRecordsPlace;
  readonly #open: Record<TagKind, OpenRecord | undefined> = { data: undefined, meta: undefined };
  /** Of all records that were closed. */
  blocksClosed = 0;

  constructor(place: OpenRecordsPlace) {
    this.#place = place;
  }

  /** The lowest number that is not closed. */
  get first(): number {
    const open = [this.#open.data, this.#open.meta].flatMap((record) => record?.number ?? []);
    return Math.min(this.#place.chain.next, ...open);
  }

  /** One that has room. */
  of(kind: TagKind): OpenRecord {
    const open = this.#open[kind];
    if (open?.isFull === false) return open;
    this.#close(kind);
    const next = this.#place.chain.open();
    this.#open[kind] = next;
    this.#place.ledger.opened(next.number, kind === 'data' ? SEGMENT_DATA : SEGMENT_META);
    return next;
  }

  /** Copies blocks into a record that has room for them, and notes where they are. */
  copyIn(record: OpenRecord, blocks: Uint8Array, tags: readonly BlockTag[], vbns: number[]): void {
    const first = this.#place.chain.copyIn(record, blocks, tags);
    for (let vbn = first; vbn < first + tags.length; vbn++) {
      this.#place.inFlight.add(vbn);
      vbns.push(vbn);
    }
  }

  /** Closes the record of data with these entries, and that of metadata. */
  closeWith(entries: readonly LogEntry[], cpNumber: number): void {
    const record = this.of('data');
    record.entries = entries;
    this.#open.data = undefined;
    this.#close('meta');
    record.cpNumber = cpNumber;
    this.closeRecord(record);
  }

  /** Closes both. */
  closeAll(): void {
    this.#close('data');
    this.#close('meta');
  }

  #close(kind: TagKind): void {
    const open = this.#open[kind];
    if (open === undefined) return;
    open.cpNumber = this.#place.currentCp();
    this.#open[kind] = undefined;
    this.closeRecord(open);
  }

  closeRecord(record: OpenRecord): void {
    this.#place.ledger.closed(record);
    this.blocksClosed += record.blockCount;
    this.#place.chain.close(record, 'data');
  }
}
