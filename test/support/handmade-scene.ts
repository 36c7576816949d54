/**
 * A handmade store with what is hard to read: a backing store, a clone in mid-split, a tree that
 * merges down, limits inside blocks, zero subtrees.
 *
 *   tree 1  golden@v1     <- tree 2  golden          limit inside block 501
 *                         <- tree 3  clone           in mid-split, shares blocks with tree 1
 *                         <- tree 4  (deleting)      all below FBN 300 has moved into tree 5
 *                                    <- tree 5  other ö
 */
import { BLOCK_BYTES } from '../../src/base/units.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { HandmadeStore } from './handmade-store.js';
import { type Layer, Painter } from './layers.js';

export interface Scene {
  readonly store: HandmadeStore;
  /** By name, as a client asks for it. */
  readonly layers: Readonly<Record<'golden@v1' | 'golden' | 'clone' | 'other ö', Layer>>;
}

export function makeScene(): Scene {
  const store = new HandmadeStore();
  const random = seededRandom(2024);
  const painter = (sizeBytes: number, backing?: Layer, limitBytes = 0): Painter =>
    new Painter(store, random, { sizeBytes, backing, limitBytes });

  const base = painter(700 * BLOCK_BYTES - 1536);
  for (let fbn = 0; fbn < 700; fbn += 3) base.paint(fbn);
  for (let fbn = 1; fbn < 700; fbn += 21) base.zero(fbn);
  base.add({ id: 1, height: 2, ownerId: 1 });
  store.addVdisk({ id: 1, name: 'v1', kind: 'snapshot', headTreeId: 1, ofVdiskId: 2 });

  const golden = painter(600 * BLOCK_BYTES, base.layer, 501 * BLOCK_BYTES + 1024);
  for (let fbn = 0; fbn < 240; fbn += 5) golden.paint(fbn);
  golden.zeroSubtree(300, 1);
  golden.add({ id: 2, height: 2, backingId: 1, ownerId: 2 });
  store.addVdisk({ id: 2, name: 'golden', headTreeId: 2 });

  const clone = painter(base.layer.sizeBytes, base.layer, base.layer.sizeBytes);
  clone.paint(2);
  clone.paint(6);
  clone.zero(9);
  fillHoles(base, clone, 350);
  clone.paint(600);
  const split = { mode: 'share', phase: 'filling', positionFbn: 350, bad: [] } as const;
  clone.add({ id: 3, height: 3, backingId: 1, ownerId: 3, split });
  store.addVdisk({ id: 3, name: 'clone', headTreeId: 3 });

  const middle = painter(400 * BLOCK_BYTES, base.layer, 351 * BLOCK_BYTES + 2048);
  for (let fbn = 0; fbn < 400; fbn += 4) middle.paint(fbn);
  middle.add({ id: 4, state: 'deleting', goneBelowFbn: 300, height: 2, backingId: 1 });
  for (let fbn = 0; fbn < 300; fbn++) middle.layer.content.delete(fbn);
  const other = painter(400 * BLOCK_BYTES, middle.layer, 388 * BLOCK_BYTES + 512);
  for (let fbn = 0; fbn < 300; fbn += 8) other.paint(fbn);
  other.add({ id: 5, height: 2, backingId: 4, ownerId: 4 });
  store.addVdisk({ id: 4, name: 'other ö', headTreeId: 5 });

  store.addTree({ id: 6, state: 'dying', sizeBytes: 9 * BLOCK_BYTES });
  const layers = {
    'golden@v1': base.layer,
    golden: golden.layer,
    clone: clone.layer,
    'other ö': other.layer,
  };
  return { store, layers };
}

/** What a share split does with the holes below `positionFbn`. */
function fillHoles(backing: Painter, clone: Painter, positionFbn: number): void {
  for (let fbn = 0; fbn < positionFbn; fbn++) {
    const field = backing.tree.get(fbn);
    const bytes = backing.layer.content.get(fbn);
    if (clone.tree.has(fbn) || field === undefined) continue;
    if (field.kind === 'block' && bytes instanceof Uint8Array) {
      clone.name(fbn, bytes, field.block, true);
    } else {
      clone.zero(fbn, true);
    }
  }
}
