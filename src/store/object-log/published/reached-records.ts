/**
 * The records that hold the blocks of a tree, as of a consistency point: found by a walk over its
 * indirect blocks, whose fields say where everything is. Data is not read.
 *
 * Each level is read in order of FBN, several blocks at a time, past the engine's buffers: a walk
 * over a large tree pushes nothing out of them.
 */
import { crc32 } from '../../../base/checksum.js';
import { StoreError } from '../../../base/store-error.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../../base/units.js';
import { POINTER_BYTES, POINTER_WORDS, vbnAt, ZERO_VBN } from '../../../layout/pointer.js';
import type { PublishedTree } from '../../../layout/publication.js';
import type { Medium } from '../../medium.js';

/** Blocks that are read at the same time. */
const BLOCKS_AT_ONCE = 32;

interface Named {
  readonly vbn: number;
  readonly crc: number;
}

/** Adds the tree's records. @throws {StoreError} corrupt, device */
export async function addReachedRecords(
  medium: Medium,
  tree: PublishedTree,
  records: Set<number>,
): Promise<void> {
  const root = blocksNamedBy(Uint32Array.from(tree.root), 0, POINTER_WORDS);
  for (const { vbn } of root) records.add(Math.floor(vbn / SEGMENT_BLOCKS));
  await addBelow(medium, root, tree.height, records);
}

/** What these blocks of one level name, and so on down. */
async function addBelow(
  medium: Medium,
  blocks: readonly Named[],
  level: number,
  records: Set<number>,
): Promise<void> {
  for (let start = 0; start < blocks.length; start += BLOCKS_AT_ONCE) {
    const some = blocks.slice(start, start + BLOCKS_AT_ONCE);
    const loaded = await Promise.all(some.map((each) => load(medium, each)));
    for (const words of loaded) {
      const named = blocksNamedBy(words, 0, words.length);
      for (const { vbn } of named) records.add(Math.floor(vbn / SEGMENT_BLOCKS));
      if (level > 1) await addBelow(medium, named, level - 1, records);
    }
  }
}

function blocksNamedBy(words: Uint32Array, start: number, end: number): Named[] {
  const named: Named[] = [];
  for (let at = start; at < end; at += POINTER_WORDS) {
    const vbn = vbnAt(words, at);
    if (vbn > ZERO_VBN) named.push({ vbn, crc: words[at + 2] as number });
  }
  return named;
}

async function load(medium: Medium, { vbn, crc }: Named): Promise<Uint32Array> {
  const words = new Uint32Array((BLOCK_BYTES / POINTER_BYTES) * POINTER_WORDS);
  const bytes = new Uint8Array(words.buffer);
  await medium.readBlocks(vbn, [bytes]);
  if (crc32(bytes) === crc) return words;
  throw new StoreError(
    'corrupt',
    `metadata block ${vbn} of ${medium.name} is damaged; run a check of the store`,
  );
}
