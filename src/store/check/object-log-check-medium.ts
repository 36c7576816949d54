/**
 * A store on an object store, as the check reads it. Records are fetched whole, so that their
 * trailers are checked too; the last few are kept.
 */
import { isStoreError, StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../base/units.js';
import type { ObjectStore } from '../../env/object-store.js';
import type { Fsinfo } from '../../layout/fsinfo.js';
import { decodeRecord, type LogRecord } from '../../layout/log-record.js';
import { type ChainState, findChain, getPatiently, walkChain } from '../object-log/chain-walk.js';
import type { StorePrefix } from '../object-log/published/publication-objects.js';
import { recordKey } from '../object-log/record-chain.js';
import type { CheckMedium, LoggedBatch, NamedBlock } from './check-medium.js';
import type { Findings } from './check-report.js';

/** Records that are kept: 32 MiB. */
const KEPT_RECORDS = 8;

type Fetched = { readonly object: Uint8Array; readonly record: LogRecord } | 'missing' | 'damaged';

export class ObjectLogCheckMedium implements CheckMedium {
  readonly fsinfo: Fsinfo;
  /** The newest one, which may be later than that of its last consistency point. */
  readonly epoch: number;
  readonly vbnEnd = Number.MAX_SAFE_INTEGER;
  readonly copyOffsets = [0];
  readonly #objects: ObjectStore;
  readonly #prefix: string;
  readonly #findings: Findings;
  readonly #kept = new Map<number, Fetched>();
  /** Records that were reported already. */
  readonly #bad = new Map<number, 'missing' | 'damaged'>();

  constructor({ objects, prefix }: StorePrefix, chain: ChainState, findings: Findings) {
    this.#objects = objects;
    this.#prefix = prefix;
    this.fsinfo = chain.fsinfo;
    this.epoch = chain.epoch;
    this.#findings = findings;
  }

  get name(): string {
    return `${this.#objects.name}/${this.#prefix}`;
  }

  get where(): StorePrefix {
    return { objects: this.#objects, prefix: this.#prefix };
  }

  placeFault(vbn: number): string | undefined {
    return vbn < SEGMENT_BLOCKS ? 'record 0, which there is not' : undefined;
  }

  async read(vbn: number, into: readonly Uint8Array[]): Promise<string | undefined> {
    for (const [index, block] of into.entries()) {
      const fault = await this.#readOne(vbn + index, block);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }

  async #readOne(vbn: number, into: Uint8Array): Promise<string | undefined> {
    const number = Math.floor(vbn / SEGMENT_BLOCKS);
    const fetched = await this.fetch(number);
    if (typeof fetched === 'string') return `record ${number} is ${fetched}`;
    const index = vbn % SEGMENT_BLOCKS;
    if (index >= fetched.record.blocks) {
      return `record ${number} has ${fetched.record.blocks} blocks, none with index ${index}`;
    }
    into.set(fetched.object.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES));
    return undefined;
  }

  /** The record; one that is missing or damaged is reported once. */
  async fetch(number: number): Promise<Fetched> {
    const known = this.#bad.get(number) ?? this.#kept.get(number);
    if (known !== undefined) return known;
    const key = recordKey(this.#prefix, number);
    const object = await getPatiently(this.#objects, key);
    const fetched = this.#judge(number, object);
    if (typeof fetched === 'string') {
      this.#bad.set(number, fetched);
      this.#findings.add('record', `record ${number} of ${this.name} is ${fetched}`);
      return fetched;
    }
    this.#kept.set(number, fetched);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > KEPT_RECORDS && oldest !== undefined) this.#kept.delete(oldest);
    return fetched;
  }

  #judge(number: number, object: Uint8Array | undefined): Fetched {
    if (object === undefined) return 'missing';
    const record = decodeRecord(object, this.fsinfo.uuid);
    return record?.number === number ? { object, record } : 'damaged';
  }

  rewrite(vbn: number): Promise<void> {
    return Promise.reject(new StoreError('unsupported', `VBN ${vbn} has no second copy`));
  }

  tagFault(vbn: number, named: NamedBlock): string | undefined {
    const fetched = this.#kept.get(Math.floor(vbn / SEGMENT_BLOCKS));
    if (fetched === undefined || typeof fetched === 'string') return undefined;
    const tag = fetched.record.tags[vbn % SEGMENT_BLOCKS];
    if (fetched.record.kind !== 'data') return `stands in a record of kind ${fetched.record.kind}`;
    if (tag === undefined) return 'has no tag';
    if (tag.kind !== named.kind) return `has a tag that says ${tag.kind}`;
    if (tag.crc !== named.crc) return 'has another checksum in its tag';
    if (tag.level === named.level && tag.fbn === named.fbn) return undefined;
    return `has a tag that says level ${tag.level}, FBN ${tag.fbn}`;
  }

  async *log(): AsyncGenerator<LoggedBatch> {
    for await (const { record } of walkChain(this.#objects, this.#prefix, this.fsinfo)) {
      if (record.entries.length > 0) yield record;
    }
  }
}

/** @throws {StoreError} invalid: no store there; unsupported */
export async function openObjectLogForCheck(
  objects: ObjectStore,
  prefix: string,
  findings: Findings,
): Promise<ObjectLogCheckMedium | undefined> {
  try {
    const chain = await findChain(objects, prefix);
    return new ObjectLogCheckMedium({ objects, prefix }, chain, findings);
  } catch (error) {
    if (!isStoreError(error, 'corrupt')) throw error;
    findings.add('fsinfo-lost', error.message);
    findings.markIncomplete();
    return undefined;
  }
}
