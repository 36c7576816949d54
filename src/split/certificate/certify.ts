/**
 * The certificate: a walk over what a vdisk and its snapshots name, and over what others name.
 *
 * 1. It begins with a consistency point, and speaks of what stood then: no pointer of that time
 *    that still stands at the end reaches a foreign block. What is written meanwhile is placed new.
 * 2. Nothing is written, no data is read; clients go on. It stands in the way of merges only.
 * 3. What refutes it was true in one synchronous step, whatever went on beside it.
 */
import type { CertificateCounts } from '../../layout/certificate-record.js';
import type { Tree } from '../../store/tree.js';
import type { VdiskTable } from '../../vdisk/vdisk-table.js';
import type { SplitParts } from '../special-load.js';
import { FilledCheck } from './filled-check.js';
import { Findings } from './findings.js';
import { FormerFields } from './former-fields.js';
import { LegalSharing } from './legal-sharing.js';
import { nameOfTree } from './lineage.js';
import { NameCount } from './name-count.js';
import { OwnWalk } from './own-walk.js';
import { Ownership } from './ownership.js';

export interface CertifyRequest {
  /** Trees of the vdisk, the oldest last. */
  readonly own: readonly Tree[];
  /** The one whose holes were just filled: none may be left. */
  readonly target?: Tree;
  /** What holes were filled from. */
  readonly former: Tree | undefined;
  /** lineage: the former backing store and what it reads through. all: every tree of the store. */
  readonly others: 'lineage' | 'all';
  readonly isStopped: () => boolean;
}

export interface Verification {
  readonly counts: CertificateCounts;
  readonly findings: Findings;
  readonly cpNumber: number;
}

/** @returns undefined if it was stopped */
export async function certify(
  parts: SplitParts,
  table: VdiskTable,
  request: CertifyRequest,
): Promise<Verification | undefined> {
  const { engine } = parts;
  const held = new Set<Tree>();
  const hold = (tree: Tree): void => {
    if (held.has(tree)) return;
    held.add(tree);
    tree.holds++;
  };
  try {
    for (const tree of request.own) hold(tree);
    for (let at = request.former; at !== undefined; at = at.backing) hold(at);
    await engine.consistencyPoint();
    engine.assertAlive();
    return await walkAll(parts, table, request, hold);
  } finally {
    for (const tree of held) tree.holds--;
  }
}

async function walkAll(
  parts: SplitParts,
  table: VdiskTable,
  request: CertifyRequest,
  hold: (tree: Tree) => void,
): Promise<Verification | undefined> {
  const { engine } = parts;
  const { own, target, isStopped } = request;
  const { cpNumber } = engine.medium.fsinfo;
  const nameOf = (tree: Tree): string => nameOfTree(table, tree);
  const findings = new Findings();
  const names = new NameCount();
  const sharing = new LegalSharing(engine);
  const former = request.former === undefined ? undefined : new FormerFields(parts, request.former);
  const filled = new FilledCheck(engine, { former, sharing, findings, nameOf });
  const end = { parts, isStopped };
  const ownWalk = new OwnWalk({ parts, names, sharing, filled, former, target });
  for (const [index, tree] of own.entries()) {
    // A merge lowers the limits in its last step: until then the older tree's count for it, too.
    const limitOf = (): number =>
      Math.min(...own.slice(index).map((each) => each.readThroughLimitBytes || Infinity));
    await ownWalk.walk(end, { tree, isOldest: index === own.length - 1, limitOf });
  }
  const ownership = new Ownership(end, { names, sharing, findings, nameOf });
  const others = await walkOthers(parts, request, ownership, hold);
  await ownership.judge(own, others);
  return isStopped() ? undefined : { counts: filled.counts, findings, cpNumber };
}

async function walkOthers(
  { engine }: SplitParts,
  { own, former, others }: CertifyRequest,
  ownership: Ownership,
  hold: (tree: Tree) => void,
): Promise<Tree[]> {
  const walked: Tree[] = [];
  const seen = new Set(own);
  const walk = async (tree: Tree): Promise<void> => {
    if (seen.has(tree) || tree.gone) return;
    seen.add(tree);
    hold(tree);
    walked.push(tree);
    await ownership.walkOther(tree);
  };
  if (others === 'all') {
    // What a TRIM takes out of a tree that was not walked yet hangs on a new one: so these are
    // walked as well, but not for ever. What came after the first walk was walked where it was.
    for (const tree of engine.table.all()) if (!tree.gone) hold(tree);
    for (const tree of [...engine.table.all()]) await walk(tree);
    for (const tree of [...engine.table.all()]) await walk(tree);
  } else {
    for (let tree = former; tree !== undefined; tree = tree.backing) await walk(tree);
  }
  return walked;
}
