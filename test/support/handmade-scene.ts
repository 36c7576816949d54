/**
 * A handmade store with what is hard to read: a backing store, a clone in mid-split, a tree that
 * merges down, limits inside blocks, zero subtrees.
 *
 *   tree 1  golden@v1     <- tree 2  golden          limit inside block 501
 *                         <- tree 3  clone           in mid-split, shares blocks with tree 1
 *                         <- tree 4  (deleting)      all below FBN 256 has moved into tree 5
 *                                    <- tree 5  other ö
 */
import { crc32 } from '../../src/base/checksum.js';
import { BLOCK_BYTES } from '../../src/base/units.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import type { LogEntry } from '../../src/layout/log-entry.js';
import { DEFAULT_POLICY } from '../../src/layout/split-policy.js';
import { HandmadeStore } from './handmade-store.js';
import { type Layer, Painter, randomBlock } from './layers.js';

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
  const policy = DEFAULT_POLICY;
  const split = { mode: 'share', phase: 'filling', policy, positionFbn: 350, bad: [] } as const;
  clone.add({ id: 3, height: 3, backingId: 1, ownerId: 3, split });
  store.addVdisk({ id: 3, name: 'clone', headTreeId: 3 });

  const middle = painter(400 * BLOCK_BYTES, base.layer, 351 * BLOCK_BYTES + 2048);
  for (let fbn = 0; fbn < 400; fbn += 4) middle.paint(fbn);
  middle.add({ id: 4, state: 'deleting', goneBelowFbn: 256, height: 2, backingId: 1 });
  const other = painter(400 * BLOCK_BYTES, middle.layer, 388 * BLOCK_BYTES + 512);
  for (let fbn = 0; fbn < 300; fbn += 8) other.paint(fbn);
  mergeBelow(store, middle, other, 256);
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

/** What a merge has done below this FBN: holes above have the blocks, hidden ones are free. */
function mergeBelow(store: HandmadeStore, from: Painter, into: Painter, endFbn: number): void {
  for (const [fbn, field] of from.tree) {
    const bytes = from.layer.content.get(fbn);
    if (fbn >= endFbn || field.kind !== 'block' || !(bytes instanceof Uint8Array)) continue;
    if (into.tree.has(fbn)) store.freeData(field.block);
    else into.name(fbn, bytes, field.block, false);
    from.layer.content.delete(fbn);
  }
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

/** Groups over the scene, in the store and in the model; returns where each begins. */
export function writeLog(scene: Scene, first: number): number[] {
  const random = seededRandom(7);
  const { golden, clone } = scene.layers;
  const { store } = scene;
  const groups: number[] = [];
  const write = (entries: readonly LogEntry[], payload: readonly Uint8Array[] = []): void => {
    groups.push(store.addGroup(first + groups.length, entries, payload));
  };
  const data = (treeId: number, layer: Layer, fbns: readonly number[]): void => {
    const payload = fbns.map(() => randomBlock(random));
    const entries = fbns.map((fbn, payloadIndex): LogEntry => {
      const bytes = payload[payloadIndex] as Uint8Array;
      layer.content.set(fbn, bytes);
      return { kind: 'data', treeId, fbn, crc: crc32(bytes), payloadIndex };
    });
    write(entries, payload);
  };
  const range = (treeId: number, layer: Layer, fbn: number, to: 'zero' | 'hole'): void => {
    for (let f = fbn; f < fbn + 40; f++) {
      if (to === 'zero') layer.content.set(f, 'zero');
      else layer.content.delete(f);
    }
    write([{ kind: 'range', treeId, fbn, blocks: 40, to }]);
  };
  data(2, golden, [0, 1, 2, 599, 300]);
  range(2, golden, 10, 'zero');
  range(2, golden, 30, 'hole');
  data(2, golden, [12, 31, 45]);
  range(3, clone, 320, 'hole');
  range(2, golden, 40, 'hole');
  const placed = [50, 51, 52].map((fbn) => {
    const bytes = randomBlock(random);
    clone.content.set(fbn, bytes);
    return store.placeUncounted(bytes);
  });
  const crcs = Uint32Array.from(placed, (block) => block.crc);
  write([{ kind: 'pointers', treeId: 3, fbn: 50, vbn: placed[0]?.vbn ?? 0, crcs }]);
  data(3, clone, [51, 321, 699]);
  return groups;
}
