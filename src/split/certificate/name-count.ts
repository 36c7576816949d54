/**
 * How often each block of a vdisk is named, by its own trees and by others. Of what it does not
 * name itself nothing is kept. Memory: a bit for each name.
 */
import { VbnSet } from '../../store/vbn-set.js';

export class NameCount {
  /** Blocks that are named more often than their layer's index says. */
  readonly #layers: VbnSet[] = [new VbnSet()];

  /** Blocks that its own trees name. */
  get own(): VbnSet {
    return this.#layers[0] as VbnSet;
  }

  /** One of its own trees names the block: how often that is now. */
  addOwn(vbn: number): number {
    for (const [index, layer] of this.#layers.entries()) if (layer.add(vbn)) return index + 1;
    const layer = new VbnSet();
    layer.add(vbn);
    this.#layers.push(layer);
    return this.#layers.length;
  }

  /** Another tree names it: how often that is now; 0 if it is none of the vdisk's. */
  addOther(vbn: number): number {
    return this.own.has(vbn) ? this.addOwn(vbn) : 0;
  }

  /** Blocks with several names, and how many: each block as often as it has names, but one. */
  *several(): IterableIterator<readonly [vbn: number, names: number]> {
    for (let names = this.#layers.length; names >= 2; names--) {
      for (const vbn of (this.#layers[names - 1] as VbnSet).values()) yield [vbn, names];
    }
  }
}
