/**
 * Who may take a store over, and from when on he may answer: courtesy and bounded stale reads. No
 * byte's safety depends on anything here (docs/decisions/0025-who-may-take-over.md).
 *
 * 1. Without the word `takeOver` nobody is deposed who shows life: his process on this machine, a
 *    record of his that is new, or that he takes a knock away.
 * 2. Who deposed somebody that may still be alive answers no client before every answer of that one
 *    is due: 2 x the bound for stale reads after the SEAL, its own or that of the one before, which
 *    the epoch object says, whichever is longer.
 */
import { isStoreError, StoreError } from '../../base/store-error.js';
import type { Clock } from '../../env/clock.js';
import { mustOpenReadOnly } from '../../layout/fsinfo.js';
import {
  type ChainState,
  findChain,
  getPatiently,
  newestEpoch,
  newestIndexed,
  numberKey,
  putText,
} from './chain-walk.js';
import type { OwnerToken } from './epoch-object.js';
import { recordKey } from './record-chain.js';
import { type Bid, ChainEnd, type Claim, takeOver } from './take-over.js';

/** Whoever loses so many races leaves the store to those who won them. */
const ROUNDS_MAX = 16;
const LOOKS_PER_WATCH = 8;

export interface OwnershipOptions {
  readonly clock: Clock;
  readonly owner: OwnerToken;
  /** True if a program of this machine has ended. */
  readonly isGone: (program: string) => boolean;
  /** Depose the owner at once, whether it lives or not. */
  readonly takeOver: boolean;
  /** No read of a deposed server is answered so long after its successor's first answer. */
  readonly staleReadsMsMax: number;
}

export interface Granted extends Claim {
  /** On the clock of the options. */
  readonly answersFromMs: number;
}

/** Where somebody who wants the store asks whether its owner lives. */
export function knockKey(prefix: string, epoch: number): string {
  return numberKey(prefix, 'knock', epoch);
}

/**
 * Takes the store over, as soon as it is free.
 * @throws {StoreError} in-use: its owner lives; fenced: others were quicker; invalid, corrupt
 */
export async function claimStore(
  bid: Bid,
  options: OwnershipOptions | undefined,
): Promise<Granted> {
  const { objects, prefix } = bid;
  /** Of whom the caller spoke: one that came after him is asked like any other. */
  let deposed: number | undefined;
  for (let round = 1; round <= ROUNDS_MAX; round++) {
    const mark = await markOf(bid);
    try {
      const state = await findChain(objects, prefix);
      refuseUnknown(bid, state);
      const end = new ChainEnd(bid, state);
      deposed ??= state.epoch;
      const isFree =
        options === undefined ||
        (await isLetGo(bid, state, end, { ...options, isNamed: deposed === state.epoch }));
      await end.advance();
      bid.admit(end.cp.fsinfo);
      const ownMs = options?.staleReadsMsMax ?? 0;
      const dueMs = isFree ? ownMs : Math.max(ownMs, boundOf(state, isSettled(state, end)));
      const claim = await takeOver(bid, state, end, { ownMs, dueMs });
      if (claim !== undefined) {
        const { clock } = options ?? {};
        const waitMs = isFree ? 0 : 2 * dueMs;
        if (options !== undefined)
          void objects.delete([knockKey(prefix, state.epoch)]).catch(ignore);
        return { ...claim, answersFromMs: (clock?.nowMs() ?? 0) + waitMs };
      }
    } catch (error) {
      // What was read belonged to an owner that has gone on meanwhile: its older objects are gone.
      if (!isStoreError(error, 'corrupt') || (await markOf(bid)) === mark) throw error;
    }
  }
  const name = `${objects.name}/${prefix}`;
  throw new StoreError(
    'fenced',
    `${name}: others claimed it ${ROUNDS_MAX} times, let them have it`,
  );
}

function ignore(): void {}

/**
 * An owner waits for its predecessor before its first consistency point: one that got so far has
 * nobody before it, one that did not may have.
 */
function isSettled({ epoch }: ChainState, { cp }: ChainEnd): boolean {
  return cp.fsinfo.epoch === epoch;
}

/** How late an answer of the owner may be, or of those it had to wait for. 0: it did not say. */
function boundOf({ staleReads }: ChainState, isAlone: boolean): number {
  return (isAlone ? staleReads?.ownMs : staleReads?.dueMs) ?? 0;
}

function refuseUnknown({ objects, prefix }: Bid, { fsinfo }: ChainState): void {
  if (!mustOpenReadOnly(fsinfo)) return;
  const name = `${objects.name}/${prefix}`;
  throw new StoreError('unsupported', `${name} can only be read by this program`);
}

/** Changes whenever objects may have been deleted. */
async function markOf({ objects, prefix }: Bid): Promise<string> {
  const epoch = await newestEpoch(objects, prefix);
  if (epoch === undefined) return '';
  const indexed = await newestIndexed(objects, prefix, epoch);
  return `${epoch} ${indexed?.record ?? 0}`;
}

/**
 * True if nobody can be answering clients; false if somebody might.
 * @throws {StoreError} in-use: somebody is
 */
async function isLetGo(
  bid: Bid,
  state: ChainState,
  end: ChainEnd,
  options: OwnershipOptions & { readonly isNamed: boolean },
): Promise<boolean> {
  const { owner, epoch } = state;
  await end.advance();
  const isAlone = isSettled(state, end);
  if (isAlone && end.cp.fsinfo.clean) return true;
  const isNeighbour = owner !== undefined && owner.machine === options.owner.machine;
  if (isNeighbour && options.isGone(owner.program)) return isAlone;
  if (options.takeOver && options.isNamed) return false;
  if (isNeighbour || (await showsLife(bid, state, end, options))) {
    const who = owner === undefined ? 'another server' : owner.label;
    throw new StoreError(
      'in-use',
      `${bid.objects.name}/${bid.prefix}: ${who} serves it (epoch ${epoch}); stop it first, or ` +
        'depose it with --take-over',
    );
  }
  return false;
}

/** Knocks, and watches whether the owner takes the knock away, or puts another record. */
async function showsLife(
  { objects, prefix, nonce }: Bid,
  state: ChainState,
  end: ChainEnd,
  { clock, owner, staleReadsMsMax }: OwnershipOptions,
): Promise<boolean> {
  if (end.sealed !== undefined) return false;
  const knock = knockKey(prefix, state.epoch);
  const watchMs = 2 * Math.max(staleReadsMsMax, boundOf(state, true));
  await putText(objects, knock, `${owner.label} ${nonce().join('.')}\n`);
  const startMs = clock.nowMs();
  while (clock.nowMs() - startMs < watchMs) {
    const lookMs = watchMs / LOOKS_PER_WATCH;
    await new Promise<void>((done) => clock.setTimer(lookMs, done, { keepsAlive: true }));
    if ((await getPatiently(objects, knock, 0, 1)) === undefined) return true;
    const next = recordKey(prefix, end.number);
    if ((await getPatiently(objects, next, 0, 1)) !== undefined) return true;
  }
  return false;
}
