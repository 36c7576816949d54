/** Reading and writing the descriptor of an external tree: its only blocks. */
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import {
  DESCRIPTOR_BLOCKS_MAX,
  DESCRIPTOR_FBN,
  decodeExternalDescriptor,
  descriptorBlocks,
  type ExternalDescriptor,
  encodeExternalDescriptor,
} from '../layout/external-descriptor.js';
import { FLAG_IN_MEMORY, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import { cutCost, cutRange, isCutLoaded } from '../store/range-cut.js';
import type { Tree } from '../store/tree.js';

const DESCRIPTOR_END = DESCRIPTOR_FBN + DESCRIPTOR_BLOCKS_MAX;

/** The descriptor's blocks. @throws {StoreError} unsupported: its paths do not fit */
export function toDescriptorBlocks(descriptor: ExternalDescriptor): Uint8Array[] {
  const bytes = encodeExternalDescriptor(descriptor);
  const count = Math.ceil(bytes.length / BLOCK_BYTES);
  if (count > DESCRIPTOR_BLOCKS_MAX) {
    throw new StoreError(
      'unsupported',
      `the ${descriptor.files.length} files of ${descriptor.files[0]?.path ?? ''} take ` +
        `${bytes.length} bytes to describe, more than ${DESCRIPTOR_BLOCKS_MAX * BLOCK_BYTES}: ` +
        'join some with qemu-img, or use shorter paths',
    );
  }
  return Array.from({ length: count }, (_, index) => {
    const block = new Uint8Array(BLOCK_BYTES);
    block.set(bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES));
    return block;
  });
}

/** Loads what `putDescriptor` needs, and makes room for it in memory. */
export async function prepareDescriptor(engine: Engine, tree: Tree): Promise<void> {
  for (;;) {
    engine.pool.makeFree(cutCost(tree) + DESCRIPTOR_BLOCKS_MAX);
    if (isCutLoaded(engine, tree, DESCRIPTOR_FBN, DESCRIPTOR_END)) return;
    await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
    engine.assertAlive();
  }
}

/** Puts the blocks in place of what is there; the next consistency point has them. */
export function putDescriptor(engine: Engine, tree: Tree, blocks: readonly Uint8Array[]): void {
  const { trees, pool, generation } = engine;
  cutRange(engine, tree, DESCRIPTOR_FBN, DESCRIPTOR_END, 'hole');
  blocks.forEach((block, index) => {
    trees.dirtyPath(tree, DESCRIPTOR_FBN + index, generation);
    const buffer = pool.take();
    pool.bytes(buffer).set(block);
    trees.putData(tree, buffer, generation, false);
  });
  engine.changed();
}

/** @throws {StoreError} corrupt */
export async function loadDescriptor(engine: Engine, tree: Tree): Promise<ExternalDescriptor> {
  const first = await loadBlock(engine, tree, DESCRIPTOR_FBN);
  const count = descriptorBlocks(first) ?? 1;
  const bytes = new Uint8Array(count * BLOCK_BYTES);
  bytes.set(first);
  for (let index = 1; index < count; index++) {
    bytes.set(await loadBlock(engine, tree, DESCRIPTOR_FBN + index), index * BLOCK_BYTES);
  }
  const descriptor = decodeExternalDescriptor(bytes);
  if (descriptor !== undefined && descriptor.sizeBytes === tree.sizeBytes) return descriptor;
  throw badDescriptor(engine, tree, 'makes no sense');
}

async function loadBlock(engine: Engine, tree: Tree, fbn: number): Promise<Uint8Array> {
  const { trees, loader, pool } = engine;
  for (;;) {
    const found = trees.walk(tree, fbn);
    if (found !== WALK_MISS) break;
    await loader.loadMeta(trees.missVbn, trees.missCrc);
    engine.assertAlive();
  }
  const block = new Uint8Array(BLOCK_BYTES);
  if (trees.walk(tree, fbn) !== WALK_FIELD) throw badDescriptor(engine, tree, 'is missing');
  const { fieldWords: words, fieldAt: at } = trees;
  if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) {
    block.set(pool.bytes(words[at] as number));
    return block;
  }
  const vbn = vbnAt(words, at);
  if (vbn <= ZERO_VBN) throw badDescriptor(engine, tree, 'is missing');
  const bad = await loader.readData(vbn, [block], [words[at + 2] as number]);
  if (bad >= 0) throw badDescriptor(engine, tree, `is damaged in VBN ${vbn}`);
  return block;
}

function badDescriptor(engine: Engine, tree: Tree, what: string): StoreError {
  const which = `the descriptor of external tree ${tree.id} of ${engine.medium.name}`;
  return new StoreError('corrupt', `${which} ${what}; run a check of the store, then relocate it`);
}
