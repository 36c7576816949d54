/** Which trees, and which of their blocks, the cleaner may change now. */
import type { Engine } from '../../engine.js';
import { type BlockPlace, type NamedAs, namedAs, sharedPath } from '../../named-block.js';
import type { Tree } from '../../tree.js';

/**
 * True if the tree may be changed by the cleaner now. A tree that is freed or merged down is clean
 * while that goes on (see free-job.ts, merge-job.ts), and who holds a tree wants it to stay as it
 * is.
 */
export function mayRenew(tree: Tree): boolean {
  if (tree.gone || tree.holds > 0 || tree.goneBelowFbn > 0) return false;
  return tree.state === 'live' || (tree.state === 'deleting' && tree.overCount > 1);
}

/**
 * The same as `namedAs`, but a block is the tree's own also beneath a shared pointer if all others
 * that named the blocks on the way have let go: to make the path dirty then copies nothing that
 * anybody else has.
 */
export function ownedAs(
  engine: Engine,
  tree: Tree,
  vbn: number,
  place: BlockPlace,
): NamedAs | 'load-reference' {
  const named = namedAs(engine.trees, tree, vbn, place);
  if (named !== 'shared') return named;
  for (const above of sharedPath) {
    const names = engine.namesOf(above);
    if (names === 'load') return 'load-reference';
    if (names === 'wait' || names > 1) return 'shared';
  }
  return 'own';
}
