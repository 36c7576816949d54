/**
 * Walks buffer trees on the medium and keeps which VBNs they name.
 *
 * 1. Every pointer on the way is judged; one that is wrong is reported and not followed.
 * 2. Fields wholly below goneBelowFbn, of any level, are not the tree's any more: not even looked
 *    at.
 * 3. A metadata block has one name: named a second time, it is reported and not followed again.
 *    But for a shared one with an entry in the reference file: its names are counted, and what it
 *    names is counted for it once.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../../base/units.js';
import type { TagKind } from '../../layout/log-record.js';
import {
  FLAG_FILLED,
  FLAG_SHARED,
  HOLE_VBN,
  POINTER_WORDS,
  pointerFault,
  vbnAt,
  ZERO_VBN,
} from '../../layout/pointer.js';
import { VbnSet } from '../vbn-set.js';
import type { BlockVerifier } from './block-verifier.js';
import type { CheckMedium } from './check-medium.js';
import type { Findings } from './check-report.js';

export interface WalkPlan {
  /** For messages: `golden@v1 (tree 3)` or `the usage file`. */
  readonly name: string;
  readonly root: ArrayLike<number>;
  readonly height: number;
  readonly goneBelowFbn: number;
  /** No block may be at or beyond this FBN. */
  readonly endFbn: number;
  /** Metafile: each block of level 0, in order of FBN. */
  readonly onBlock?: (fbn: number, bytes: Uint8Array) => void;
  /** Vdisk tree: each data pointer. Without `onBlock`, level 0 is data. */
  readonly onData?: (data: DataName) => void;
  /**
   * Vdisk tree: each shared pointer, and each pointer beneath one, to an indirect block. True if
   * the reference file has an entry for the block.
   */
  readonly onShared?: (vbn: number, isBeneathShared: boolean) => boolean;
  /** Vdisk tree: a shared block that was walked before, with so many data blocks beneath. */
  readonly onAgain?: (blocks: number) => void;
}

export interface DataName {
  readonly fbn: number;
  readonly vbn: number;
  readonly crc: number;
  readonly isNew: boolean;
  /** A shared pointer leads to it. */
  readonly isBeneathShared: boolean;
  /** A block that has an entry in the reference file leads to it. */
  readonly isBeneathEntry: boolean;
}

/** What leads to a pointer. */
interface Above {
  readonly isShared: boolean;
  readonly hasEntry: boolean;
}

/** Where a pointer stands: which block it is to name. */
interface Place {
  readonly level: number;
  readonly fbn: number;
  readonly above: Above;
}

/** A shared block that was walked. */
interface SharedBlock {
  readonly crc: number;
  readonly level: number;
  readonly fbn: number;
  readonly dataBlocks: number;
}

export class TreeWalker {
  /** VBNs of data blocks, and the first VBNs of metadata blocks, that were named. */
  readonly data = new VbnSet();
  readonly meta = new VbnSet();
  readonly #medium: CheckMedium;
  readonly #verifier: BlockVerifier;
  readonly #findings: Findings;
  /** Blocks with an entry in the reference file. */
  readonly #shared = new Map<number, SharedBlock>();

  constructor(medium: CheckMedium, verifier: BlockVerifier, findings: Findings) {
    this.#medium = medium;
    this.#verifier = verifier;
    this.#findings = findings;
  }

  async walk(plan: WalkPlan): Promise<void> {
    const above = { isShared: false, hasEntry: false };
    await this.#visit(plan, Uint32Array.from(plan.root), 0, { level: plan.height, fbn: 0, above });
  }

  /** @returns how many data blocks the tree names beneath the pointer */
  async #visit(plan: WalkPlan, words: Uint32Array, at: number, place: Place): Promise<number> {
    const { level, fbn } = place;
    const vbn = this.#blockAt(plan, words, at, level, fbn);
    if (vbn === undefined) return 0;
    const crc = words[at + 2] as number;
    const what = whereOf(plan, level, fbn);
    const isFlagged = ((words[at + 1] as number) & FLAG_SHARED) !== 0;
    const isShared = place.above.isShared || isFlagged;
    const isEntry = isShared && plan.onShared?.(vbn, place.above.isShared) === true;
    const known = isEntry ? this.#shared.get(vbn) : undefined;
    if (known?.crc === crc && known.level === level && known.fbn === fbn) {
      plan.onAgain?.(known.dataBlocks);
      return known.dataBlocks;
    }
    if (!this.meta.add(vbn) || this.data.has(vbn)) {
      this.#findings.add(
        'reference',
        `${what}: VBN ${vbn} of ${this.#medium.name} is named twice, and not only as data`,
      );
      return 0;
    }
    const bytes = await this.#verifier.loadMeta(vbn, { crc, fbn, level }, what);
    if (bytes === undefined) return 0;
    if (level === 0) {
      plan.onBlock?.(fbn, bytes);
      return 0;
    }
    const above = { isShared, hasEntry: place.above.hasEntry || isEntry };
    const dataBlocks = await this.#visitFields(plan, bytes, { level, fbn, above });
    if (isEntry) this.#shared.set(vbn, { crc, level, fbn, dataBlocks });
    return dataBlocks;
  }

  async #visitFields(plan: WalkPlan, bytes: Uint8Array, place: Place): Promise<number> {
    const { level, fbn, above } = place;
    const fields = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const isDataBelow = level === 1 && plan.onBlock === undefined;
    const span = SPAN_BLOCKS[level - 1] as number;
    let dataBlocks = 0;
    for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
      const field = index * POINTER_WORDS;
      const below = { level: level - 1, fbn: fbn + index * span, above };
      if (!isDataBelow) dataBlocks += await this.#visit(plan, fields, field, below);
      else if (this.#visitData(plan, fields, field, below)) dataBlocks++;
    }
    if (isDataBelow && this.#verifier.isFull) await this.#verifier.flush();
    return dataBlocks;
  }

  #visitData(plan: WalkPlan, fields: Uint32Array, at: number, place: Place): boolean {
    const { fbn, above } = place;
    const vbn = this.#blockAt(plan, fields, at, 0, fbn);
    if (vbn === undefined) return false;
    const crc = fields[at + 2] as number;
    if (this.meta.has(vbn)) {
      this.#findings.add(
        'reference',
        `${whereOf(plan, 0, fbn)}: VBN ${vbn} of ${this.#medium.name} is named as metadata too`,
      );
    }
    plan.onData?.({
      fbn,
      vbn,
      crc,
      isNew: this.data.add(vbn),
      isBeneathShared: above.isShared,
      isBeneathEntry: above.hasEntry,
    });
    return true;
  }

  /** The VBN that the pointer names; undefined for a hole, for zeros, and for what cannot be. */
  #blockAt(
    plan: WalkPlan,
    words: Uint32Array,
    at: number,
    level: number,
    fbn: number,
  ): number | undefined {
    if (fbn + (SPAN_BLOCKS[level] as number) <= plan.goneBelowFbn) return undefined;
    const vbn = vbnAt(words, at);
    const isFilled = ((words[at + 1] as number) & FLAG_FILLED) !== 0;
    if (vbn === HOLE_VBN && !isFilled && words[at + 1] === 0 && words[at + 2] === 0) {
      if (words[at + 3] === 0) return undefined;
    }
    const kind: TagKind = level === 0 && plan.onBlock === undefined ? 'data' : 'meta';
    let fault = pointerFault(words, at, this.#medium.vbnEnd);
    if (fault === undefined && vbn === HOLE_VBN && isFilled) fault = 'is a hole with a filled flag';
    if (fault === undefined && isFilled && plan.onBlock !== undefined) {
      fault = 'has a filled flag in a metafile';
    }
    const isShared = ((words[at + 1] as number) & FLAG_SHARED) !== 0;
    if (fault === undefined && isShared && (level === 0 || plan.onBlock !== undefined)) {
      fault = `has a shared flag${level === 0 ? ', but names data' : ' in a metafile'}`;
    }
    if (fault === undefined && vbn > ZERO_VBN) {
      const place = this.#medium.placeFault(vbn, kind);
      if (place !== undefined) fault = `names VBN ${vbn}, ${place}`;
      else if (fbn >= plan.endFbn) fault = `names VBN ${vbn} beyond its end, FBN ${plan.endFbn}`;
    }
    if (fault === undefined) return vbn > ZERO_VBN ? vbn : undefined;
    this.#findings.add(
      'pointer',
      `${whereOf(plan, level, fbn)} of ${this.#medium.name}: the pointer ${fault}`,
    );
    this.#findings.markIncomplete();
    return undefined;
  }
}

function whereOf(plan: WalkPlan, level: number, fbn: number): string {
  return level === 0
    ? `${plan.name}, FBN ${fbn}`
    : `${plan.name}, level-${level} block over FBN ${fbn}`;
}
