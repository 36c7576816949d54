/**
 * Whose the blocks are that a vdisk names: its own, or legally shared, and in use.
 *
 * 1. A walk over other trees counts the names of the vdisk's blocks. It is no picture of one
 *    moment, so what it finds is a suspicion only.
 * 2. A suspicion becomes a finding when, in one synchronous step, the names still stand where they
 *    were found and the reference file does not allow as many. What clients wrote or let go
 *    meanwhile so never refutes anything.
 * 3. A name is a pointer in a block: what several trees name through one shared indirect block has
 *    one name there.
 * 4. While it goes on no tree is merged into another (`holds`), so no pointer moves from a tree
 *    that was not walked yet into one that was.
 */
import { SEGMENT_BLOCKS } from '../../base/units.js';
import { FLAG_IN_MEMORY, POINTER_WORDS, vbnAt, ZERO_VBN } from '../../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../../store/buffer-tree.js';
import { PointerPath } from '../../store/pointer-path.js';
import type { Tree } from '../../store/tree.js';
import { SEGMENT_WORDS, VbnSet } from '../../store/vbn-set.js';
import { FINDINGS_MAX, type Findings } from './findings.js';
import { type LegalSharing, LOAD, WAIT } from './legal-sharing.js';
import type { NameCount } from './name-count.js';
import { eachStep, endOf, isFirst, type Step, type WalkEnd } from './tree-steps.js';

const FIELDS_WORDS = 256 * POINTER_WORDS;
/** Blocks between two yields. */
const SLICE_BLOCKS = 4096;
/** Suspicions whose places are looked for in one walk. */
const LOCATED_MAX = 16384;

/** Where a pointer stands. Level 0: to a data block. */
interface Place {
  readonly tree: Tree;
  readonly fbn: number;
  readonly level: number;
}

export interface OwnershipParts {
  readonly names: NameCount;
  readonly sharing: LegalSharing;
  readonly findings: Findings;
  readonly nameOf: (tree: Tree) => string;
}

export class Ownership {
  readonly #end: WalkEnd;
  readonly #with: OwnershipParts;
  readonly #path: PointerPath;
  /** Shared indirect blocks that were walked. */
  readonly #covered = new VbnSet();

  constructor(end: WalkEnd, parts: OwnershipParts) {
    this.#end = end;
    this.#with = parts;
    this.#path = new PointerPath(end.parts.engine.pool);
  }

  /** Counts the names that a foreign tree has for the vdisk's blocks. */
  walkOther(tree: Tree): Promise<void> {
    return eachStep(this.#end, tree, (fbn, start) => this.#step(tree, fbn, start));
  }

  #step(tree: Tree, fbn: number, start: number): Step {
    const path = this.#path;
    const { names, sharing } = this.#with;
    const found = path.find(tree, fbn);
    if (found === WALK_MISS) return [{ vbn: path.missVbn, crc: path.missCrc }];
    for (let level = tree.height; level >= path.lowest; level--) {
      if (!isFirst(fbn, level, start)) continue;
      if (sharing.covers(path.vbns[level] as number, level) === LOAD) {
        return [{ vbn: sharing.missVbn, crc: sharing.missCrc }];
      }
    }
    for (let level = tree.height; level >= path.lowest; level--) {
      const vbn = path.vbns[level] as number;
      if (vbn === 0 || !isFirst(fbn, level, start)) continue;
      // The vdisk's own walk went, or another one's will go, beneath it.
      if (names.addOther(vbn) > 0) return endOf(fbn, level);
      if (sharing.covers(vbn, level) === true && !this.#covered.add(vbn)) return endOf(fbn, level);
    }
    if (found !== WALK_FIELD) return endOf(fbn, path.level);
    this.#eachField(fbn, (vbn) => names.addOther(vbn));
    return endOf(fbn, 1);
  }

  /** The data blocks of the level-1 block that the path has come to. */
  #eachField(fbn: number, take: (vbn: number, index: number) => void): void {
    const { words } = this.#path;
    const start = this.#path.at - (fbn % 256) * POINTER_WORDS;
    for (let at = start; at < start + FIELDS_WORDS; at += POINTER_WORDS) {
      if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) continue;
      const vbn = vbnAt(words, at);
      if (vbn > ZERO_VBN) take(vbn, (at - start) / POINTER_WORDS);
    }
  }

  /** Asks whether what was counted is allowed; what is not becomes a finding. */
  async judge(own: readonly Tree[], others: readonly Tree[]): Promise<void> {
    const suspects = new VbnSet();
    await this.#suspectNames(suspects);
    await this.#suspectUse(suspects);
    while (suspects.size > 0 && this.#with.findings.count < FINDINGS_MAX) {
      if (this.#end.isStopped()) return;
      const places = takeSome(suspects);
      for (const tree of [...own, ...others]) await this.#locate(tree, places);
      const ownTrees = new Set(own);
      for (const [vbn, found] of places) await this.#confirm(vbn, found, ownTrees);
    }
  }

  async #suspectNames(suspects: VbnSet): Promise<void> {
    const { engine } = this.#end.parts;
    const { names, sharing } = this.#with;
    let looked = 0;
    for (const [vbn, count] of names.several()) {
      if (++looked % SLICE_BLOCKS === 0) await engine.options.clock.yield();
      for (;;) {
        engine.assertAlive();
        const allowed = sharing.counts(vbn, count);
        if (allowed !== LOAD) {
          if (allowed < count) suspects.add(vbn);
          break;
        }
        await engine.loader.loadMeta(sharing.missVbn, sharing.missCrc);
      }
    }
  }

  async #suspectUse(suspects: VbnSet): Promise<void> {
    const { engine } = this.#end.parts;
    const { own } = this.#with.names;
    let looked = 0;
    for (const segment of [...own.segments()].sort((a, b) => a - b)) {
      if (++looked % 256 === 0) await engine.options.clock.yield();
      const use = await this.#useOf(segment);
      const bits = own.bitsOf(segment) as Uint32Array;
      for (let word = 0; word < SEGMENT_WORDS; word++) {
        let free = (bits[word] as number) & ~(use[word] as number);
        for (; free !== 0; free &= free - 1) {
          suspects.add(segment * SEGMENT_BLOCKS + word * 32 + 31 - Math.clz32(free & -free));
        }
      }
    }
  }

  async #useOf(segment: number): Promise<Uint32Array> {
    const { engine } = this.#end.parts;
    for (;;) {
      engine.assertAlive();
      const use = engine.medium.useOf(segment);
      if (use !== undefined) return use;
      await engine.medium.loadUse(segment);
    }
  }

  /** Adds where the tree names one of these blocks. */
  #locate(tree: Tree, places: Map<number, Place[]>): Promise<void> {
    const path = this.#path;
    return eachStep(this.#end, tree, (fbn, start) => {
      const found = path.find(tree, fbn);
      if (found === WALK_MISS) return [{ vbn: path.missVbn, crc: path.missCrc }];
      for (let level = tree.height; level >= path.lowest; level--) {
        if (!isFirst(fbn, level, start)) continue;
        places.get(path.vbns[level] as number)?.push({ tree, fbn, level });
      }
      if (found !== WALK_FIELD) return endOf(fbn, path.level);
      const first = fbn - (fbn % 256);
      this.#eachField(fbn, (vbn, index) => {
        places.get(vbn)?.push({ tree, fbn: first + index, level: 0 });
      });
      return endOf(fbn, 1);
    });
  }

  /** In one synchronous step: do the names still stand, and may they? */
  async #confirm(vbn: number, places: readonly Place[], own: ReadonlySet<Tree>): Promise<void> {
    const { engine } = this.#end.parts;
    const { sharing } = this.#with;
    for (;;) {
      engine.assertAlive();
      if (this.#end.isStopped()) return;
      const standing = this.#standing(vbn, places);
      if (standing === undefined) {
        await engine.loader.loadMeta(this.#path.missVbn, this.#path.missCrc);
        continue;
      }
      const mine = standing.find(({ tree }) => own.has(tree));
      if (mine === undefined) return;
      const segment = Math.floor(vbn / SEGMENT_BLOCKS);
      const use = engine.medium.useOf(segment);
      if (use === undefined) {
        await engine.medium.loadUse(segment);
        continue;
      }
      const bit = vbn % SEGMENT_BLOCKS;
      if (((use[bit >>> 5] as number) & (1 << (bit & 31))) === 0) {
        this.#report('free-block', vbn, mine, `which is free: it is nobody's`);
        return;
      }
      const allowed = sharing.counts(vbn, standing.length);
      if (allowed === LOAD) {
        await engine.loader.loadMeta(sharing.missVbn, sharing.missCrc);
      } else if (allowed === WAIT) {
        await engine.consistencyPoint();
      } else {
        if (allowed < standing.length) this.#reportForeign(vbn, mine, standing, allowed);
        return;
      }
    }
  }

  /** Those that still name the block, one for each pointer; undefined: load something. */
  #standing(vbn: number, places: readonly Place[]): Place[] | undefined {
    const standing: Place[] = [];
    const pointers = new Set<string>();
    for (const place of places) {
      const { tree, fbn, level } = place;
      if (tree.gone) continue;
      const now = this.#path.vbnOf(tree, fbn, level);
      if (now === -1) return undefined;
      if (now !== vbn) continue;
      // Through a shared indirect block several trees have one and the same pointer; a dirty buffer
      // and a root are one tree's alone.
      const holder = this.#path.holderOf(tree, level);
      const pointer = holder === 0 ? `${tree.id} root ${fbn}` : `${holder} ${fbn}`;
      if (pointers.has(pointer)) continue;
      pointers.add(pointer);
      standing.push(place);
    }
    return standing;
  }

  #reportForeign(vbn: number, mine: Place, standing: readonly Place[], allowed: number): void {
    const theirs = standing.filter((place) => place !== mine);
    const who = theirs.slice(0, 3).map((place) => this.#whereOf(place));
    const more = theirs.length > 3 ? ` and ${theirs.length - 3} more` : '';
    const owners = allowed === 1 ? 'no entry' : `an entry of ${allowed} owners`;
    const names = theirs.length > 1 ? 'name' : 'names';
    const what = `which ${who.join(' and ')}${more} ${names} too`;
    this.#report('foreign-block', vbn, mine, `${what}, with ${owners} in the reference file`);
  }

  #report(kind: 'foreign-block' | 'free-block', vbn: number, mine: Place, what: string): void {
    this.#with.findings.add(kind, mine.fbn, `${this.#whereOf(mine)}, names VBN ${vbn}, ${what}`);
  }

  #whereOf({ tree, fbn, level }: Place): string {
    const name = this.#with.nameOf(tree);
    return level === 0 ? `${name}, FBN ${fbn}` : `${name}, level-${level} block over FBN ${fbn}`;
  }
}

/** Takes some of the blocks out of the set, to look for their places. */
function takeSome(suspects: VbnSet): Map<number, Place[]> {
  const places = new Map<number, Place[]>();
  for (const vbn of suspects.values()) {
    places.set(vbn, []);
    if (places.size === LOCATED_MAX) break;
  }
  for (const vbn of places.keys()) suspects.delete(vbn);
  return places;
}
