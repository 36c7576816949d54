/** Which trees are a vdisk's own, and what it reads through beside them. */
import type { Tree } from '../../store/tree.js';
import type { VdiskEntry, VdiskTable } from '../../vdisk/vdisk-table.js';

export interface Lineage {
  /** From the newest to the oldest. */
  readonly own: readonly Tree[];
  /** The first tree that is not its own; undefined: it stands alone. */
  readonly foreign: Tree | undefined;
}

/**
 * What belongs to the vdisk or snapshot: its tree, those of the older snapshots of the same vdisk,
 * and what was deleted between them. Of what was deleted below the oldest only what nobody else
 * reads through is its own: it is about to be merged into it.
 */
export function lineageOfEntry(table: VdiskTable, entry: VdiskEntry): Lineage {
  const id = (entry.of ?? entry).record.id;
  const own: Tree[] = [];
  let unnamed: Tree[] = [];
  for (let tree: Tree | undefined = entry.head; tree !== undefined; tree = tree.backing) {
    const owner = table.byId(tree.ownerId);
    if (owner === undefined) {
      unnamed.push(tree);
    } else if ((owner.of ?? owner).record.id === id) {
      own.push(...unnamed, tree);
      unnamed = [];
    } else {
      return { own, foreign: unnamed[0] ?? tree };
    }
  }
  const end = unnamed.findIndex((tree) => tree.overCount > 1);
  if (end < 0) return { own: [...own, ...unnamed], foreign: undefined };
  return { own: [...own, ...unnamed.slice(0, end)], foreign: unnamed[end] };
}

/** The vdisk's trees from its newest one down to this one; none if that is not among them. */
export function ownDownTo(head: Tree, last: Tree): Tree[] {
  const own: Tree[] = [];
  for (let tree: Tree | undefined = head; tree !== undefined; tree = tree.backing) {
    own.push(tree);
    if (tree === last) return own;
  }
  return [];
}

/** The vdisk whose lineage the tree is in, as the oldest of its own. */
export function entryOver(table: VdiskTable, tree: Tree): VdiskEntry | undefined {
  for (let at = tree; ; ) {
    const owner = table.byId(at.ownerId);
    if (owner !== undefined) return owner.of ?? owner;
    const [above]: Tree[] = [...at.over()];
    if (above === undefined || at.overCount > 1) return undefined;
    at = above;
  }
}

/** For messages: `golden@v1 (tree 3)`. */
export function nameOfTree(table: VdiskTable, tree: Tree): string {
  const owner = table.byId(tree.ownerId);
  const what = tree.state === 'dying' ? 'what was cut off or deleted' : 'a deleted snapshot';
  return `${owner?.name ?? what} (tree ${tree.id})`;
}
