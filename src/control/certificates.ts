/** Certificates of vdisks as the API shows them. */
import { toIsoTime } from '../env/wall-time.js';
import type { CertificateRecord } from '../layout/certificate-record.js';
import type { VerifyReport } from '../split/certificate/make-certificate.js';
import type { Certificate, Vdisk, Verification } from './schemas.js';

const HASH_START = 'sha256:';

export function toCertificate(record: CertificateRecord): Certificate;
export function toCertificate(record: CertificateRecord | undefined): Vdisk['certificate'];
export function toCertificate(record: CertificateRecord | undefined): Vdisk['certificate'] {
  if (record === undefined) return null;
  const { wallMs, formerTreeId, formerName, contentHash, ...same } = record;
  const name = formerName === '' ? null : formerName;
  return {
    ...same,
    result: record.refutations === 0 ? 'proven' : 'refuted',
    at: toIsoTime(wallMs),
    formerBacking: formerTreeId === 0 ? null : { name, treeId: formerTreeId },
    contentHash: contentHash === undefined ? null : toHash(contentHash),
  };
}

export function toVerification(
  name: string,
  { certificate, findings }: VerifyReport,
): Verification {
  return {
    name,
    certificate: toCertificate(certificate),
    findings: findings.map(({ kind, fbn, message }) => ({ kind, fbn: fbn ?? null, message })),
  };
}

export function toHash(bytes: Uint8Array): string {
  return HASH_START + Buffer.from(bytes).toString('hex');
}

/** Of a text that the schema has checked. */
export function fromHash(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.slice(HASH_START.length), 'hex'));
}
