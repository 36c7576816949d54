/**
 * What a split says it has filled: below its position the tree has no hole left through which a
 * block of the backing store is read, but for the ranges that it lists as bad. To release it while
 * there is one would lose that block.
 *
 * Goes through the level-1 blocks of the tree and its lineage once more, quietly: what is wrong
 * with them was reported when they were walked. Memory: a bit for each block of these trees.
 */
import { crc32 } from '../../base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, HEIGHT_MAX, SPAN_BLOCKS } from '../../base/units.js';
import { POINTER_WORDS, vbnAt, ZERO_VBN } from '../../layout/pointer.js';
import type { SplitRecord, TreeRecord } from '../../layout/tree-record.js';
import { VbnSet } from '../vbn-set.js';
import type { CheckMedium } from './check-medium.js';
import type { Findings } from './check-report.js';
import type { StoreRecords } from './record-check.js';

/** FBNs that a tree answers for itself: bit n of level l stands for block n of that level. */
class Covered {
  readonly #levels = Array.from({ length: HEIGHT_MAX + 1 }, () => new VbnSet());

  add(fbn: number, level: number): void {
    this.#levels[level]?.add(fbn / (SPAN_BLOCKS[level] as number));
  }

  has(fbn: number): boolean {
    return this.#levels.some((set, level) =>
      set.has(Math.floor(fbn / (SPAN_BLOCKS[level] as number))),
    );
  }
}

interface Scan {
  readonly tree: TreeRecord;
  readonly endFbn: number;
  /** Called for data at level 0, and for zeros at any level. */
  readonly visit: (fbn: number, level: number, isData: boolean) => void;
}

export class SplitCheck {
  readonly #medium: CheckMedium;
  readonly #records: StoreRecords;
  readonly #findings: Findings;

  constructor(medium: CheckMedium, records: StoreRecords, findings: Findings) {
    this.#medium = medium;
    this.#records = records;
    this.#findings = findings;
  }

  async run(): Promise<void> {
    for (const tree of this.#records.trees.values()) {
      // An undo makes holes of what was filled, from the start on.
      if (tree.split === undefined || tree.split.phase === 'undoing') continue;
      await this.#checkTree(tree, tree.split);
    }
  }

  async #checkTree(tree: TreeRecord, split: SplitRecord): Promise<void> {
    const covered = new Covered();
    let limitBytes = tree.readThroughLimitBytes;
    let endFbn = Math.min(split.positionFbn, Math.ceil(limitBytes / BLOCK_BYTES));
    await this.#scan({ tree, endFbn, visit: (fbn, level) => covered.add(fbn, level) });
    let below = this.#records.trees.get(tree.backingId);
    for (let depth = 0; below !== undefined && depth < this.#records.trees.size; depth++) {
      const backing = below;
      const visit = (fbn: number, level: number, isData: boolean): void => {
        if (isData && fbn < endFbn && !covered.has(fbn) && !isBad(split, fbn)) {
          this.#add(tree, split, backing, fbn);
        }
        covered.add(fbn, level);
      };
      await this.#scan({ tree: backing, endFbn, visit });
      limitBytes = Math.min(limitBytes, backing.readThroughLimitBytes);
      endFbn = Math.min(endFbn, Math.ceil(limitBytes / BLOCK_BYTES));
      below = this.#records.trees.get(backing.backingId);
    }
  }

  #add(tree: TreeRecord, split: SplitRecord, backing: TreeRecord, fbn: number): void {
    this.#findings.add(
      'split',
      `${this.#records.nameOfTree(tree.id)}: its split has come to FBN ${split.positionFbn}, but ` +
        `FBN ${fbn} still reads ${this.#records.nameOfTree(backing.id)}`,
    );
  }

  #scan(scan: Scan): Promise<void> {
    return this.#visit(scan, Uint32Array.from(scan.tree.root), scan.tree.height, 0);
  }

  async #visit(scan: Scan, pointer: Uint32Array, level: number, fbn: number): Promise<void> {
    const { tree, endFbn, visit } = scan;
    const gone = tree.state === 'live' ? 0 : tree.goneBelowFbn;
    if (fbn >= endFbn || fbn + (SPAN_BLOCKS[level] as number) <= gone) return;
    const vbn = vbnAt(pointer, 0);
    if (vbn === ZERO_VBN) visit(fbn, level, false);
    if (vbn <= ZERO_VBN) return;
    if (level === 0) {
      visit(fbn, 0, true);
      return;
    }
    const words = await this.#load(vbn, pointer[2] as number);
    if (words === undefined) return;
    const span = SPAN_BLOCKS[level - 1] as number;
    for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
      const field = words.subarray(index * POINTER_WORDS, (index + 1) * POINTER_WORDS);
      const isEmpty = field[0] === 0 && field[1] === 0;
      if (!isEmpty) await this.#visit(scan, field, level - 1, fbn + index * span);
    }
  }

  async #load(vbn: number, crc: number): Promise<Uint32Array | undefined> {
    for (const offset of this.#medium.copyOffsets) {
      const bytes = new Uint8Array(BLOCK_BYTES);
      const fault = await this.#medium.read(vbn + offset, [bytes]);
      if (fault !== undefined || crc32(bytes) !== crc) continue;
      return new Uint32Array(bytes.buffer, bytes.byteOffset, BLOCK_BYTES / 4);
    }
    return undefined;
  }
}

function isBad(split: SplitRecord, fbn: number): boolean {
  return split.bad.some((range) => range.fbn <= fbn && fbn < range.fbn + range.blocks);
}
