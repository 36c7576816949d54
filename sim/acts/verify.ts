/** Certificates: at the end of a split, and whenever an operator asks for one. */
import type { Life } from '../life.js';
import type { ModelDisk, ModelSplit } from '../model/disk.js';
import { Violation } from '../model/violation.js';

/** Beside everything else: a sound store is refuted by nothing but an association. */
export async function verify(life: Life): Promise<void> {
  const { model } = life;
  const disk = life.pick(
    model.disks.filter((each) => each.kind !== 'external' && !each.isGone && !life.isLocked(each)),
  );
  if (disk === undefined) return;
  const { name } = disk;
  const before = isAssociated(life, disk);
  const answer = await life.perform('verify', name, () => life.store.verify(name));
  if (answer.kind === 'failed') {
    const isExplained =
      answer.error === 'out-of-space' ||
      answer.error === 'external' ||
      (answer.error === 'not-found' && (disk.isGone || disk.isLeaving));
    if (!isExplained && !life.hasStopped) throw life.unexpected('verify', name, answer);
    return;
  }
  const { findings, certificate } = answer.value;
  life.parts.digest.add('verify', certificate.blocks, certificate.compared);
  const wrong = findings.find(({ kind }) => kind !== 'association');
  if (wrong !== undefined) throw new Violation(`verify ${name}: ${wrong.kind}: ${wrong.message}`);
  if (certificate.refutations !== findings.length) {
    throw new Violation(`verify ${name}: ${certificate.refutations} findings, not these`);
  }
  const isRefuted = findings.length > 0;
  // A snapshot of its own that loses its name meanwhile, and that others hold, is foreign then.
  const after = disk.isGone ? 'perhaps' : isAssociated(life, disk);
  if (isRefuted && before === 'no' && after === 'no') {
    throw new Violation(`verify ${name}: ${findings[0]?.message}, but it stood alone`);
  }
  if (!isRefuted && before === 'yes' && after === 'yes') {
    throw new Violation(`verify ${name}: it is said to stand alone, and reads through another`);
  }
}

/** Whether the disk's lineage ends in something that is not its own. */
function isAssociated({ model }: Life, disk: ModelDisk): 'yes' | 'no' | 'perhaps' {
  const association = model.foreignBacking(disk);
  if (association === undefined) return 'no';
  return association.isSure && (disk.of ?? disk).split === undefined ? 'yes' : 'perhaps';
}

/** A split has ended: the vdisk says of itself that nothing reaches what it was split from. */
export async function checkCertificate(
  life: Life,
  root: ModelDisk,
  split: ModelSplit,
): Promise<void> {
  // Whose the tree is must be known, then and now.
  const isNamed = life.model.disks.some(({ layer }) => layer === split.layer);
  if (!split.isSure || !isNamed || root.isGone || life.isLocked(root)) return;
  const answer = await life.perform('certificate', root.name, () => life.store.list());
  if (answer.kind === 'failed' || root.isGone || life.isLocked(root)) return;
  const info = answer.value.find(({ name }) => name === root.name);
  if (info === undefined) return;
  if (info.certificate === undefined) throw new Violation(`${root.name} has no certificate`);
  if (info.certificate.refutations === 0) return;
  throw new Violation(`${root.name}: ${info.certificate.refutations} findings in its certificate`);
}
