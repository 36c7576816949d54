/**
 * The external backing stores that are open, by their trees, and what is known of where they have
 * data. A lineage may end in one: what is a hole in all its trees is read there.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import type { Tree } from '../store/tree.js';
import { ExternalError, type ExternalStore, PIECE_BLOCKS } from './external-store.js';

/** Pieces that are kept: 4 MiB, which say all of 128 GiB. */
const PIECES_MAX = 2048;

/** What a synchronous look lacked: where the external backing store has data in a piece. */
export interface MissingPresence {
  readonly external: Tree;
  readonly piece: number;
}

export class Externals {
  readonly #stores = new Map<Tree, ExternalStore>();
  /** In order of their coming. */
  readonly #presence = new Map<Tree, Map<number, Uint8Array>>();
  #pieces = 0;

  add(tree: Tree, store: ExternalStore): void {
    this.#stores.set(tree, store);
  }

  /** Nothing reads it any more. */
  remove(tree: Tree): ExternalStore | undefined {
    const store = this.#stores.get(tree);
    this.#stores.delete(tree);
    this.#pieces -= this.#presence.get(tree)?.size ?? 0;
    this.#presence.delete(tree);
    return store;
  }

  of(tree: Tree): ExternalStore | undefined {
    return this.#stores.get(tree);
  }

  all(): Iterable<ExternalStore> {
    return this.#stores.values();
  }

  /** @throws {ExternalError} */
  read(tree: Tree, fbn: number, into: Uint8Array): Promise<void> {
    return this.#ask(tree, (store) => store.read(fbn, into));
  }

  /** Blocks of the piece that may have data, a bit for each; undefined if that must be loaded. */
  presenceOf(tree: Tree, piece: number): Uint8Array | undefined {
    return this.#presence.get(tree)?.get(piece);
  }

  /** @throws {ExternalError} */
  async loadPresence({ external, piece }: MissingPresence): Promise<void> {
    if (this.presenceOf(external, piece) !== undefined) return;
    const bits = await this.#ask(external, (store) => store.presence(piece));
    // It may be gone by now, or have come twice.
    if (!this.#stores.has(external) || this.presenceOf(external, piece) !== undefined) return;
    let pieces = this.#presence.get(external);
    if (pieces === undefined) {
      pieces = new Map();
      this.#presence.set(external, pieces);
    }
    pieces.set(piece, bits);
    this.#pieces++;
    while (this.#pieces > PIECES_MAX) this.#dropOldest();
  }

  #dropOldest(): void {
    for (const pieces of this.#presence.values()) {
      for (const piece of pieces.keys()) {
        pieces.delete(piece);
        this.#pieces--;
        return;
      }
    }
  }

  /** End of the stretch from here on that surely has no data, as far as its piece tells. */
  emptyUntil(tree: Tree, fbn: number): number {
    const bits = this.presenceOf(tree, Math.floor(fbn / PIECE_BLOCKS));
    const end = (Math.floor(fbn / PIECE_BLOCKS) + 1) * PIECE_BLOCKS;
    let until = fbn;
    while (bits !== undefined && until < end && !hasBit(bits, until)) until++;
    return Math.max(fbn + 1, until);
  }

  async #ask<T>(tree: Tree, call: (store: ExternalStore) => Promise<T>): Promise<T> {
    const store = this.#stores.get(tree);
    if (store === undefined) {
      throw new StoreError('closed', `the external backing store of tree ${tree.id} is closed`);
    }
    try {
      return await call(store);
    } catch (error) {
      if (!isStoreError(error)) throw error;
      throw new ExternalError(error.kind, error.message, { cause: error });
    }
  }
}

/** The bit of this block in what is known of its piece. */
export function hasBit(bits: Uint8Array, fbn: number): boolean {
  const index = fbn % PIECE_BLOCKS;
  return (((bits[index >>> 3] as number) >>> (index & 7)) & 1) !== 0;
}

/** The external tree that the lineage of this one ends in, if it does. */
export function externalUnder(tree: Tree): Tree | undefined {
  let last = tree;
  while (last.backing !== undefined) last = last.backing;
  return last.isExternal ? last : undefined;
}
