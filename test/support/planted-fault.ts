/** A fault that is planted in a store on purpose, and what the check must say of it. */
import { BLOCK_BYTES } from '../../src/base/units.js';
import type { FaultKind } from '../../src/store/check/check-report.js';
import type { MediumKind, Specimen } from './check-scenes.js';
import type { Surgery } from './store-surgery.js';

export interface Planted {
  readonly name: string;
  readonly media?: readonly MediumKind[];
  readonly scene?: 'closed' | 'crashed' | 'share split';
  readonly plant: (surgery: Surgery, specimen: Specimen) => Promise<void>;
  /** Kinds of all faults, and a text that one of the messages has. */
  readonly kinds: readonly FaultKind[];
  readonly says: RegExp;
}

export const IN_PLACE: readonly MediumKind[] = ['in-place'];
export const OBJECT_LOG: readonly MediumKind[] = ['object-log'];

export const wordAt = (words: Uint32Array, at: number): number => words[at] ?? 0;

/** Inverts a bit of the medium, under whatever checksum stands over it. */
export async function rot(specimen: Specimen, vbn: number, byte = 5): Promise<void> {
  const { device, objects } = specimen;
  device?.flipBit(vbn * BLOCK_BYTES + byte, 3);
  const record = Math.floor(vbn / 1024);
  const key = `store/log/${record.toString(16).padStart(16, '0')}`;
  objects?.objects.flipBit(key, (vbn % 1024) * BLOCK_BYTES + byte, 3);
}

/** VBN of a data block of the vdisk. */
export const dataOf = async (surgery: Surgery, name: string, fbn: number) =>
  surgery.vbnOf((await surgery.treeOf(name)).id, fbn);
