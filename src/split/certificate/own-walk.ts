/**
 * The walk over the trees of the vdisk itself: which blocks they name, how often, and what was
 * filled there.
 */
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../../base/units.js';
import { FLAG_IN_MEMORY, POINTER_WORDS, vbnAt, ZERO_VBN } from '../../layout/pointer.js';
import { WALK_FIELD, WALK_HOLE, WALK_MISS } from '../../store/buffer-tree.js';
import { PointerPath } from '../../store/pointer-path.js';
import type { Tree } from '../../store/tree.js';
import { emptyUntil } from '../../vdisk/block-status.js';
import type { SplitParts } from '../special-load.js';
import type { FilledCheck, OwnRange } from './filled-check.js';
import type { FormerFields } from './former-fields.js';
import { type LegalSharing, LOAD } from './legal-sharing.js';
import type { NameCount } from './name-count.js';
import { eachStep, endOf, isFirst, type Step, type WalkEnd } from './tree-steps.js';

export interface OwnWalkParts {
  readonly parts: SplitParts;
  readonly names: NameCount;
  readonly sharing: LegalSharing;
  readonly filled: FilledCheck;
  readonly former: FormerFields | undefined;
  /** The tree whose holes were filled: none may be left. Undefined: nobody says so. */
  readonly target: Tree | undefined;
}

export interface OwnTree {
  readonly tree: Tree;
  /** The last of the vdisk's own: what reads through it reads something foreign, or zeros. */
  readonly isOldest: boolean;
  readonly limitOf: () => number;
}

export class OwnWalk {
  readonly #with: OwnWalkParts;
  readonly #path: PointerPath;
  readonly #formerPath: PointerPath;

  constructor(parts: OwnWalkParts) {
    this.#with = parts;
    this.#path = new PointerPath(parts.parts.engine.pool);
    this.#formerPath = new PointerPath(parts.parts.engine.pool);
  }

  walk(end: WalkEnd, own: OwnTree): Promise<void> {
    return eachStep(end, own.tree, (fbn, start) => this.#step(own, fbn, start));
  }

  #step({ tree, isOldest, limitOf }: OwnTree, fbn: number, start: number): Step {
    const limitBytes = limitOf();
    const path = this.#path;
    const found = path.find(tree, fbn);
    if (found === WALK_MISS) return [{ vbn: path.missVbn, crc: path.missCrc }];
    const covered = this.#coveredLevel(tree, fbn, start);
    if (typeof covered !== 'number') return covered;
    if (covered > 0) {
      this.#takePath(tree, fbn, start, covered);
      return endOf(fbn, covered);
    }
    if (found !== WALK_FIELD) {
      const next = this.#empty(tree, fbn, found, limitBytes);
      // Nothing is counted before it is sure that nothing has to be loaded.
      if (typeof next === 'number') this.#takePath(tree, fbn, start, 1);
      return next;
    }
    const { words, at, filledAbove } = path;
    const range: OwnRange = {
      tree,
      fbn: fbn - (fbn % FIELDS_PER_BLOCK),
      words,
      start: at - (fbn % FIELDS_PER_BLOCK) * POINTER_WORDS,
      filledAbove,
      isOldest,
      limitBytes,
      mustBeFull: tree === this.#with.target,
    };
    const missing = this.#with.filled.missing(range);
    if (missing !== undefined) return missing;
    const again = this.#takePath(tree, fbn, start, 1);
    if (again > 0) return endOf(fbn, again);
    this.#with.filled.take(range);
    this.#takeFields(range);
    return endOf(fbn, 1);
  }

  /**
   * Level of the block on the path that the former backing store names in this very place, where
   * all beneath is shared with it: nothing is to be compared there. 0 if there is none.
   */
  #coveredLevel(tree: Tree, fbn: number, start: number): Step {
    const { former, sharing, target } = this.#with;
    if (former === undefined || tree !== target) return 0;
    for (let level = tree.height; level >= this.#path.lowest; level--) {
      const vbn = this.#path.vbns[level] as number;
      if (!isFirst(fbn, level, start)) continue;
      const covers = sharing.covers(vbn, level);
      if (covers === LOAD) return [{ vbn: sharing.missVbn, crc: sharing.missCrc }];
      if (covers === false) continue;
      for (let at: Tree | undefined = former.tree; at !== undefined; at = at.backing) {
        const theirs = this.#formerPath.vbnOf(at, fbn, level);
        if (theirs === vbn) return level;
        if (theirs !== -1) continue;
        return [{ vbn: this.#formerPath.missVbn, crc: this.#formerPath.missCrc }];
      }
    }
    return 0;
  }

  /**
   * Counts the indirect blocks, down to a level, that this range is the first one beneath.
   * @returns the level of one that is named by another of its trees, and so was walked already
   */
  #takePath(tree: Tree, fbn: number, start: number, toLevel: number): number {
    const { filled, names } = this.#with;
    for (let level = tree.height; level >= Math.max(toLevel, this.#path.lowest); level--) {
      if (!isFirst(fbn, level, start)) continue;
      filled.counts.blocks++;
      const vbn = this.#path.vbns[level] as number;
      if (vbn > 0 && names.addOwn(vbn) > 1) return level;
    }
    return 0;
  }

  #takeFields({ words, start }: OwnRange): void {
    const end = start + FIELDS_PER_BLOCK * POINTER_WORDS;
    for (let at = start; at < end; at += POINTER_WORDS) {
      if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) continue;
      const vbn = vbnAt(words, at);
      if (vbn > ZERO_VBN) this.#with.names.addOwn(vbn);
    }
  }

  /** One pointer says for a whole subtree that there is nothing. */
  #empty(tree: Tree, fbn: number, found: number, limitBytes: number): Step {
    const { filled, former, target, parts } = this.#with;
    const end = endOf(fbn, this.#path.level);
    if (found !== WALK_HOLE) {
      if (this.#path.filledAbove) {
        const sizeFbn = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
        filled.counts.filledZeros += Math.max(0, Math.min(end, sizeFbn) - fbn);
      }
      return end;
    }
    if (former === undefined || tree !== target || fbn * BLOCK_BYTES >= limitBytes) return end;
    const missing = former.look(fbn);
    if (missing !== undefined) return missing;
    filled.takeHoles(tree, fbn, limitBytes);
    const { engine, reader } = parts;
    const empty = emptyUntil(engine, reader.externals, tree, fbn);
    const next = Number.isFinite(empty) ? Math.ceil(empty / FIELDS_PER_BLOCK) : Infinity;
    return Math.min(end, Math.max(endOf(fbn, 1), next * FIELDS_PER_BLOCK));
  }
}
