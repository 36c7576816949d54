/**
 * Dirties live metadata blocks without altering them: indirect blocks at once, blocks of metafiles
 * through the generation, since only a consistency point changes those.
 */
import type { BlockTag } from '../../../layout/log-record.js';
import type { Engine } from '../../engine.js';
import type { MetafileName } from '../../generation.js';
import { namedAs } from '../../named-block.js';
import type { Tree } from '../../tree.js';
import { type Lack, loadLack } from './block-owners.js';
import { mayRenew, ownedAs } from './may-renew.js';

const METAFILES: readonly MetafileName[] = ['reference', 'tree', 'vdisk', 'usage'];

export type MetaOutcome = 'renewed' | 'fixed' | 'dead' | 'no-room';

/** Makes the block dirty, if somebody names it. */
export async function renewMeta(engine: Engine, vbn: number, tag: BlockTag): Promise<MetaOutcome> {
  if (tag.treeId === 0) return renewMetafile(engine, vbn, tag);
  const tagged = engine.table.get(tag.treeId);
  const first =
    tagged === undefined || tagged.gone ? 'dead' : await renewIn(engine, tagged, vbn, tag);
  if (first !== 'dead') return first;
  for (const tree of [...engine.table.all()]) {
    const outcome = tree.gone ? 'dead' : await renewIn(engine, tree, vbn, tag);
    if (outcome !== 'dead') return outcome;
  }
  return 'dead';
}

async function renewIn(
  engine: Engine,
  tree: Tree,
  vbn: number,
  tag: BlockTag,
): Promise<MetaOutcome> {
  for (;;) {
    engine.assertAlive();
    const outcome = renewNow(engine, tree, vbn, tag);
    if (outcome === 'load' || outcome === 'load-reference') await loadLack(engine, outcome);
    else if (outcome === 'load-it') await engine.loader.loadMeta(vbn, tag.crc);
    else return outcome;
  }
}

function renewNow(
  engine: Engine,
  tree: Tree,
  vbn: number,
  tag: BlockTag,
): MetaOutcome | Lack | 'load-it' {
  const { pool, trees, generation } = engine;
  pool.makeFree(tree.height + 2);
  const named = ownedAs(engine, tree, vbn, tag);
  if (named === 'load' || named === 'load-reference') return named;
  if (named === 'none') return 'dead';
  if (named === 'shared' || !mayRenew(tree)) return 'fixed';
  if (pool.find(vbn) < 0) return 'load-it';
  if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: tree.height + 1 }, 'client')) {
    return 'no-room';
  }
  trees.dirtyPath(tree, tag.fbn, generation, tag.level);
  engine.changed();
  return 'renewed';
}

async function renewMetafile(engine: Engine, vbn: number, tag: BlockTag): Promise<MetaOutcome> {
  for (const name of METAFILES) {
    const file = engine.metafiles[name];
    let named = namedAs(engine.trees, file, vbn, tag);
    while (named === 'load') {
      await loadLack(engine, named);
      engine.assertAlive();
      named = namedAs(engine.trees, file, vbn, tag);
    }
    if (named !== 'own') continue;
    if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: file.height + 1 }, 'client')) {
      return 'no-room';
    }
    const { fbn, level, crc } = tag;
    engine.generation.renewals.push({ name, vbn, fbn, level, crc });
    engine.changed();
    return 'renewed';
  }
  return 'dead';
}
