/** SHA-256 of all that clients would read. */
import { createHash } from 'node:crypto';
import { StoreError } from '../base/store-error.js';
import { MIB } from '../base/units.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import type { Vdisk } from './vdisk.js';
import type { VdiskEntry } from './vdisk-table.js';

/** Bytes of one read. */
const PIECE_BYTES = MIB;

/**
 * Reads all of it. A vdisk that is written meanwhile has no content of one moment: that is refused.
 * @throws {StoreError} in-use, corrupt, device, not-found; the reason of the signal
 */
export async function hashContent(
  engine: Engine,
  vdisk: Vdisk,
  entry: VdiskEntry,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const { head } = entry;
  // Nobody may give its blocks other places meanwhile: that would look like a change.
  head.holds++;
  try {
    return await hashHeld(engine, vdisk, entry, signal);
  } finally {
    head.holds--;
  }
}

async function hashHeld(
  engine: Engine,
  vdisk: Vdisk,
  entry: VdiskEntry,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const isFixed = entry.record.kind === 'snapshot';
  if (!isFixed) await engine.consistencyPoint();
  const { head } = entry;
  const before = head.changedCp;
  const { sizeBytes } = head;
  if (!isFixed && isChanged(head, before)) throw changed(entry);
  const hash = createHash('sha256');
  const piece = new Uint8Array(Math.min(PIECE_BYTES, sizeBytes));
  for (let offset = 0; offset < sizeBytes; offset += PIECE_BYTES) {
    signal?.throwIfAborted();
    const part = piece.subarray(0, Math.min(PIECE_BYTES, sizeBytes - offset));
    await vdisk.read(offset, part);
    if (!isFixed && (entry.head !== head || isChanged(head, before))) throw changed(entry);
    hash.update(part);
    await engine.options.clock.yield();
  }
  return hash.digest();
}

function isChanged(tree: Tree, before: number): boolean {
  return tree.dirty || tree.frozen !== undefined || tree.changedCp !== before;
}

function changed(entry: VdiskEntry): StoreError {
  return new StoreError(
    'in-use',
    `${entry.name} changed while its content was read: take a snapshot, and hash that`,
  );
}
