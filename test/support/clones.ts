/** Scenes of golden disks and their clones, for tests of clones and splits. */
import assert from 'node:assert/strict';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import type { SplitMode } from '../../src/layout/tree-record.js';
import { ofKind, pattern, type TestStore } from './stores.js';

type Store = TestStore['store'];

/** golden with these bytes, its snapshot v1, and clones of that, everything durable. */
export async function makeClones(
  store: Store,
  content: Uint8Array,
  ...clones: string[]
): Promise<void> {
  const golden = await store.createVdisk('golden', content.length);
  for (let at = 0; at < content.length; at += MIB) {
    const part = content.subarray(at, at + MIB);
    if (part.some((byte) => byte !== 0)) await golden.write(at, part);
  }
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of clones) await store.clone('golden@v1', name);
  await store.consistencyPoint();
}

/** Two stretches of data with so much between them that a split needs several steps. */
export function sparsePattern(seed: number): Uint8Array {
  const content = new Uint8Array(36 * MIB);
  content.set(pattern(4 * MIB, seed));
  content.set(pattern(2 * MIB, seed + 1), 34 * MIB);
  return content;
}

export async function split(store: Store, name: string, mode: SplitMode): Promise<void> {
  const job = await store.split(name, { mode });
  await job.done;
  assert.equal(store.show(name).split, undefined);
}

/** Deletes golden and overwrites what that frees, often. */
export async function deleteGolden(store: Store): Promise<void> {
  await store.delete('golden@v1');
  await store.idle();
  await store.delete('golden');
  await store.idle();
  await store.consistencyPoint();
  await overwriteFree(store);
}

/**
 * Writes until every free block of the store has been given to somebody, then frees them. An object
 * log deletes what is free, and says so at the next read.
 */
export async function overwriteFree(store: Store): Promise<void> {
  const waste = await store.createVdisk('waste', 256 * MIB);
  const bytes = new Uint8Array(MIB).fill(0xee);
  try {
    for (let at = 0; at < waste.sizeBytes; at += MIB) await waste.write(at, bytes);
  } catch (error) {
    assert.ok(ofKind('out-of-space')(error), String(error));
  }
  await store.delete('waste');
  await store.idle();
  await store.consistencyPoint();
}

export async function diffText(
  store: Store,
  from: string | undefined,
  to: string,
): Promise<string> {
  const parts: string[] = [];
  for await (const { offset, length, kind } of store.diff(from, to)) {
    parts.push(`${kind} ${offset / BLOCK_BYTES}+${length / BLOCK_BYTES}`);
  }
  return parts.join(', ');
}
