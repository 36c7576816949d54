/** Certificates in words for people. Pure. */
import type { Certificate } from '../control/schemas.js';
import { formatCount } from './figures.js';

/** Lines that say what was looked at, and with what result. */
export function describeCertificate(certificate: Certificate): string[] {
  const { kind, at, cpNumber, blocks, formerBacking, contentHash } = certificate;
  const when = kind === 'split' ? 'at the end of its split' : 'when it was asked for';
  const lines = [`${when}, ${at}, as of consistency point ${cpNumber}`];
  lines.push(`${formatCount(blocks, 'pointer')} looked at`);
  const { filledCopies, filledShares, filledZeros, compared, excepted } = certificate;
  if (filledCopies + filledShares + filledZeros > 0) {
    lines.push(
      `filled by splits: ${filledCopies} copied, ${filledShares} shared, ${filledZeros} zeros`,
    );
    const rest = excepted > 0 ? `, ${excepted} could not be (cut by a limit, or outside)` : '';
    lines.push(`${formatCount(compared, 'checksum')} compared with the backing store${rest}`);
  }
  if (formerBacking !== null) {
    const { name, treeId } = formerBacking;
    lines.push(`split from ${name ?? 'a backing store without a name'} (tree ${treeId})`);
  }
  if (contentHash !== null) lines.push(`content ${contentHash}`);
  return lines;
}
