/**
 * Taking a store over: ending the chain of whoever owned it, and claiming the next epoch.
 *
 * 1. A SEAL at the first number without a record fences the owner: its own record of that number
 *    finds the key taken, and what it has put behind it was never acknowledged.
 * 2. The void check: a number without a record may be that of one which was deleted. That is so if
 *    and only if a consistency point beyond it is indexed; the SEAL has fenced nobody then.
 * 3. What stands before the SEAL decides: the last CP record there is the store, whether it was
 *    indexed or not. An index object that lands later can only name that one, or one before it.
 * 4. The claim is the only moment at which the store changes hands; it is lost if the epoch exists.
 *
 * None of this looks at a clock. Who may try, and when clients may be answered, is ownership's
 * matter (claimant.ts).
 */
import { StoreError } from '../../base/store-error.js';
import type { ObjectStore } from '../../env/object-store.js';
import type { Fsinfo } from '../../layout/fsinfo.js';
import type { RecordHead } from '../../layout/log-record.js';
import {
  type ChainState,
  EPOCH_GAP_RECORDS,
  fsinfoOf,
  newestIndexed,
  numberKey,
  putText,
  walkChain,
} from './chain-walk.js';
import { epochText, type OwnerToken, type StaleReads } from './epoch-object.js';
import { RecordChain } from './record-chain.js';

/** After so many SEALs that came too late one is put ahead of a busy owner. */
const LATE_SEALS_MAX = 3;
const AHEAD_RECORDS_MAX = 64;

export interface Bid {
  readonly objects: ObjectStore;
  readonly prefix: string;
  readonly nonce: () => Uint8Array;
  readonly owner: OwnerToken | undefined;
  /** Of the consistency point to go on from. @throws {StoreError} it must not be gone on from */
  readonly admit: (fsinfo: Fsinfo) => void;
}

export interface Claim {
  readonly fsinfo: Fsinfo;
  readonly epoch: number;
  /** First record of the epoch. */
  readonly first: number;
}

/** Walks the chain of one epoch to its end, and remembers its last consistency point. */
export class ChainEnd {
  readonly #bid: Bid;
  readonly #epochMax: number;
  #at: { readonly uuid: Uint8Array; replayFrom: number; epoch: number };
  cp: { readonly record: number; readonly fsinfo: Fsinfo };
  /** The SEAL that ends the epoch, if there is one. */
  sealed: number | undefined;

  constructor(bid: Bid, state: ChainState) {
    const { uuid, fsinfo, epoch, cpRecord } = state;
    this.#bid = bid;
    this.#epochMax = epoch;
    this.#at = { uuid, replayFrom: fsinfo.replayFrom, epoch: fsinfo.epoch };
    this.cp = { record: cpRecord, fsinfo };
  }

  /** The first number without a record, or the one behind the SEAL. */
  get number(): number {
    return this.#at.replayFrom;
  }

  /** Goes on to the end, as it is now. @throws {StoreError} corrupt, device */
  async advance(): Promise<void> {
    // Behind the SEAL lies what was never acknowledged.
    if (this.sealed !== undefined) return;
    const { objects, prefix } = this.#bid;
    const walk = walkChain(objects, prefix, this.#at, this.#epochMax);
    let { epoch } = this.#at;
    for (;;) {
      const step = await walk.next();
      if (step.done === true) {
        this.#at = { ...this.#at, replayFrom: step.value, epoch };
        return;
      }
      const { record, object } = step.value;
      if (record.kind === 'cp' && record.number > this.cp.record) {
        const name = `${objects.name}: CP record ${record.number}`;
        this.cp = { record: record.number, fsinfo: fsinfoOf(object, name) };
      }
      if (record.kind !== 'seal') continue;
      if (epoch === this.#epochMax) this.sealed = record.number;
      else epoch++;
    }
  }
}

/**
 * Ends the epoch and claims the next one.
 * @returns undefined if the epoch was not what it seemed, or somebody else was quicker: look again
 */
export async function takeOver(
  bid: Bid,
  state: ChainState,
  end: ChainEnd,
  staleReads?: StaleReads,
): Promise<Claim | undefined> {
  const { objects, prefix, owner, nonce } = bid;
  const sealed = await sealChain(bid, state, end);
  const indexed = await newestIndexed(objects, prefix, state.epoch);
  // By the number in its key: nothing vouches for the one that the object holds.
  const isVoid = indexed !== undefined && indexed.cpNumber > end.cp.fsinfo.cpNumber;
  if (isVoid) return undefined;
  // The owner may have put another one before it was fenced. Refused, it goes on where it was.
  bid.admit(end.cp.fsinfo);
  const epoch = state.epoch + 1;
  const first = sealed + EPOCH_GAP_RECORDS;
  const claim = epochText({ base: end.cp.record, first, sealed, owner, staleReads }, nonce());
  if ((await putText(objects, numberKey(prefix, 'epoch', epoch), claim)) === 'exists') {
    return undefined;
  }
  return { fsinfo: end.cp.fsinfo, epoch, first };
}

/** Sees to it that the chain ends with a SEAL; returns its number. */
async function sealChain(bid: Bid, state: ChainState, end: ChainEnd): Promise<number> {
  for (let lateSeals = 0; ; ) {
    await end.advance();
    if (end.sealed !== undefined) return end.sealed;
    // An owner that puts record after record would be quicker for ever: one is put where it will
    // come to. Should it come no more, the next SEAL is put at the gap.
    const ahead = lateSeals < LATE_SEALS_MAX ? 0 : Math.min(AHEAD_RECORDS_MAX, 2 ** lateSeals);
    const isPut = await putSeal(bid, state, end.number + ahead);
    if (isPut && ahead === 0) return end.number;
    lateSeals = isPut ? 0 : lateSeals + 1;
  }
}

/** False if there is something else. */
async function putSeal(bid: Bid, state: ChainState, number: number): Promise<boolean> {
  const { objects, prefix, nonce } = bid;
  const head: RecordHead = {
    kind: 'seal',
    uuid: state.uuid,
    lineage: state.fsinfo.lineage,
    epoch: state.epoch,
    number,
    cpNumber: 0,
    nonce: nonce(),
  };
  const chain = new RecordChain(objects, { ...head, prefix, nonce: () => head.nonce }, number);
  chain.close(chain.open(), 'seal');
  try {
    await chain.acknowledged(number);
    return true;
  } catch (error) {
    if (error instanceof StoreError && error.kind === 'fenced') return false;
    throw error;
  }
}
