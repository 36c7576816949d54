/**
 * Objects of a store that nothing names, or that look so: crashes, failed deletes, and puts that
 * land late leave them behind.
 *
 * 1. An orphan stays one: a number never comes back, and whoever has the store later goes on from
 *    the same consistency point or a later one. So it may be deleted at any time, by anybody.
 * 2. Never among them: the id, epoch objects, SEALs (fencing rests on both), the newest index
 *    object of each epoch, and of the newest epoch the one before it; whatever is at or above the
 *    last replayFrom; and keys of other shapes.
 * 3. Whether a record is one its number does not say: nothing may be live in it, and a look at its
 *    kind must show that it is no SEAL.
 */
import { listPatiently } from './chain-walk.js';
import type { StorePrefix } from './published/publication-objects.js';

export type Suspect =
  | { readonly kind: 'record'; readonly key: string; readonly number: number }
  /** A key that is of no use whatever it holds. */
  | { readonly kind: 'index' | 'knock' | 'probe'; readonly key: string };

/** What of the store is in use. */
export interface InUse {
  readonly epoch: number;
  /** Of the last indexed consistency point. */
  readonly replayFrom: number;
}

const DIGITS = 16;

/** All objects of the store that may be orphans, a folder at a time, in order of their keys. */
export async function* findSuspects(place: StorePrefix, inUse: InUse): AsyncGenerator<Suspect> {
  yield* staleIndexes(place, inUse.epoch);
  for await (const key of listFolder(place, 'knock')) {
    const epoch = toNumber(key.slice(-DIGITS));
    // Of the newest epoch somebody may be waiting for.
    if (epoch !== undefined && epoch < inUse.epoch) yield { kind: 'knock', key };
  }
  for await (const key of listFolder(place, 'probe')) yield { kind: 'probe', key };
  for await (const key of listFolder(place, 'log')) {
    const number = toNumber(key.slice(-DIGITS));
    if (number === undefined || !key.endsWith(`/log/${key.slice(-DIGITS)}`)) continue;
    if (number >= inUse.replayFrom) return;
    yield { kind: 'record', key, number };
  }
}

/**
 * Index objects behind which there are newer ones. The newest of an old epoch stays: a candidate
 * that stands still since then asks for it (the void check).
 */
async function* staleIndexes(place: StorePrefix, newest: number): AsyncGenerator<Suspect> {
  let kept: string[] = [];
  let epochBefore: number | undefined;
  for await (const key of listFolder(place, 'cp')) {
    const epoch = toNumber(key.slice(-2 * DIGITS - 1, -DIGITS - 1));
    if (epoch === undefined || toNumber(key.slice(-DIGITS)) === undefined) continue;
    if (epoch !== epochBefore) kept = [];
    epochBefore = epoch;
    kept.push(key);
    const older = kept.length > (epoch < newest ? 1 : 2) ? kept.shift() : undefined;
    if (older !== undefined) yield { kind: 'index', key: older };
  }
}

async function* listFolder(place: StorePrefix, folder: string): AsyncGenerator<string> {
  const { objects, prefix } = place;
  let after: string | undefined;
  for (;;) {
    const keys = await listPatiently(objects, `${prefix}/${folder}/`, after);
    yield* keys;
    after = keys.at(-1);
    if (after === undefined) return;
  }
}

function toNumber(digits: string): number | undefined {
  return /^[0-9a-f]{16}$/.test(digits) ? Number.parseInt(digits, 16) : undefined;
}
