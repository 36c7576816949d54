/**
 * A naive model of trees over backing trees: plain arrays, and the same content painted into a
 * handmade store.
 */
import { BLOCK_BYTES } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import type { TreeRecord } from '../../src/layout/tree-record.js';
import type { Content, HandmadeStore, PlacedBlock } from './handmade-store.js';

/** What a tree has: bytes or 'zero' by FBN, all else a hole. */
export interface Layer {
  readonly content: Map<number, Uint8Array | 'zero'>;
  sizeBytes: number;
  readonly backing: Layer | undefined;
  /** Holes read the backing layer below this byte. */
  limitBytes: number;
}

/** All bytes that a client sees. */
export function bytesOf(layer: Layer): Buffer {
  const bytes = Buffer.alloc(Math.ceil(layer.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES);
  if (layer.backing !== undefined) bytesOf(layer.backing).copy(bytes, 0, 0, layer.limitBytes);
  for (const [fbn, what] of layer.content) {
    const at = fbn * BLOCK_BYTES;
    if (what === 'zero') bytes.fill(0, at, at + BLOCK_BYTES);
    else bytes.set(what, at);
  }
  return bytes.subarray(0, layer.sizeBytes);
}

export function randomBlock(random: Random): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  random.fill(bytes);
  return bytes;
}

/** Paints one tree, in the model and for the store. */
export class Painter {
  readonly layer: Layer;
  readonly tree = new Map<number, Content>();
  readonly #store: HandmadeStore;
  readonly #random: Random;

  constructor(store: HandmadeStore, random: Random, layer: Omit<Layer, 'content'>) {
    this.#store = store;
    this.#random = random;
    this.layer = { content: new Map(), ...layer };
  }

  paint(fbn: number): void {
    const bytes = randomBlock(this.#random);
    this.name(fbn, bytes, this.#store.placeData(bytes), false);
  }

  /** Names a block that stands already. */
  name(fbn: number, bytes: Uint8Array, block: PlacedBlock, filled: boolean): void {
    this.layer.content.set(fbn, bytes);
    this.tree.set(fbn, { kind: 'block', block, filled });
  }

  zero(fbn: number, filled = false): void {
    this.layer.content.set(fbn, 'zero');
    this.tree.set(fbn, { kind: 'zero', filled });
  }

  /** The field at this level that covers the FBN is zero. */
  zeroSubtree(fbn: number, level: number): void {
    const span = 256 ** level;
    const start = Math.floor(fbn / span) * span;
    for (let covered = start; covered < start + span; covered++) {
      this.layer.content.set(covered, 'zero');
    }
    this.tree.set(fbn, { kind: 'zero', level });
  }

  /** Gives the store the tree; size and limit are the layer's. */
  add(attributes: Partial<TreeRecord> & { readonly id: number }): void {
    const { sizeBytes, limitBytes: readThroughLimitBytes } = this.layer;
    this.#store.addTree({ sizeBytes, readThroughLimitBytes, ...attributes }, this.tree);
  }
}
