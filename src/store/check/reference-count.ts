/**
 * The reference file against what trees name. Memory: 8 KiB for each block of the file, so 32 bytes
 * for each shared block where they stand together.
 */
import {
  ownersAt,
  REFERENCE_ENTRIES_PER_BLOCK,
  REFERENCE_WORDS,
  toggleOwner,
} from '../../layout/reference-entry.js';
import type { Findings } from './check-report.js';

interface Counted {
  /** Entries as the file has them. */
  readonly stored: Uint32Array;
  /** The same, as the walk found it. */
  readonly found: Uint32Array;
}

export class ReferenceCount {
  readonly #blocks = new Map<number, Counted>();
  readonly #findings: Findings;
  readonly #name: string;

  constructor(findings: Findings, name: string) {
    this.#findings = findings;
    this.#name = name;
  }

  /** Takes in a block of the reference file. */
  addBlock(fbn: number, bytes: Uint8Array): void {
    const stored = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.#blocks.set(fbn, { stored, found: new Uint32Array(stored.length) });
    for (let at = 0; at < stored.length; at += REFERENCE_WORDS) {
      const count = stored[at] as number;
      const hasOwners = stored[at + 2] !== 0 || stored[at + 3] !== 0;
      if (count !== 1 && stored[at + 1] === 0 && (count !== 0 || !hasOwners)) continue;
      const vbn = fbn * REFERENCE_ENTRIES_PER_BLOCK + at / REFERENCE_WORDS;
      this.#add(
        vbn,
        `has an impossible reference entry: count ${count}, ${ownersText(stored, at)}`,
      );
    }
  }

  /** A tree names the block: true if the block has an entry. */
  note(vbn: number, ownerId: number, isFirst: boolean): boolean {
    const block = this.#blocks.get(Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK));
    const at = (vbn % REFERENCE_ENTRIES_PER_BLOCK) * REFERENCE_WORDS;
    if (block === undefined || block.stored[at] === 0) {
      if (!isFirst) {
        this.#add(vbn, `is named a second time, by tree ${ownerId}, and has no reference entry`);
      }
      return false;
    }
    block.found[at] = (block.found[at] as number) + 1;
    toggleOwner(block.found, at, ownerId);
    return true;
  }

  /** Reports every entry that is not what was found. */
  compare(): void {
    for (const [fbn, { stored, found }] of this.#blocks) {
      for (let at = 0; at < stored.length; at += REFERENCE_WORDS) {
        const count = stored[at] as number;
        if (count === 0) continue;
        const isSame = ownersAt(stored, at) === ownersAt(found, at);
        if (count === found[at] && isSame) continue;
        this.#add(
          fbn * REFERENCE_ENTRIES_PER_BLOCK + at / REFERENCE_WORDS,
          `has a reference entry of ${count} owners, ${ownersText(stored, at)}, but ` +
            `${found[at]} trees name it, ${ownersText(found, at)}`,
        );
      }
    }
  }

  #add(vbn: number, what: string): void {
    this.#findings.add('reference', `VBN ${vbn} of ${this.#name} ${what}`);
  }
}

function ownersText(words: Uint32Array, at: number): string {
  return `exclusive-or of ids ${ownersAt(words, at)}`;
}
