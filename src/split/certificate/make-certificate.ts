/** How certificates are made: at the end of a split, and whenever somebody asks. */
import { isStoreError, StoreError } from '../../base/store-error.js';
import { type CertificateRecord, toFormerName } from '../../layout/certificate-record.js';
import type { LogEntry } from '../../layout/log-entry.js';
import type { Engine } from '../../store/engine.js';
import type { Tree } from '../../store/tree.js';
import { ExternalError } from '../../vdisk/external-store.js';
import type { VdiskEntry, VdiskTable } from '../../vdisk/vdisk-table.js';
import type { SplitParts } from '../special-load.js';
import { certify, type Verification } from './certify.js';
import type { Finding } from './findings.js';
import { entryOver, lineageOfEntry, nameOfTree, ownDownTo } from './lineage.js';

// -- at the end of a split

export type SplitProof =
  /** `put` makes it the vdisk's, in the step that releases the association; the log says both. */
  | { readonly kind: 'proven'; put(): LogEntry[] }
  | { readonly kind: 'refuted'; readonly reason: string }
  /** What is outside of the store cannot be read now. */
  | { readonly kind: 'unreadable'; readonly reason: string }
  /** It was stopped, or could not be made: `keiki verify` makes one at any time. */
  | { readonly kind: 'none' };

/**
 * Certifies the vdisk over a tree whose last fill is durable, before the association goes: the
 * backing store cannot vanish meanwhile, so that every filled block can be compared with it.
 * `former` is undefined if it was merged into the tree.
 */
export async function certifySplit(
  parts: SplitParts,
  table: VdiskTable,
  tree: Tree,
  former: Tree | undefined,
  isStopped: () => boolean,
): Promise<SplitProof> {
  const { engine } = parts;
  const entry = entryOver(table, tree);
  const own = entry === undefined ? [tree] : ownDownTo(entry.head, tree);
  if (own.length === 0) return { kind: 'none' };
  try {
    const target = former === undefined ? {} : { target: tree };
    const request = { own, former, others: 'lineage', isStopped, ...target } as const;
    const verification = await certify(parts, table, request);
    if (verification === undefined) return { kind: 'none' };
    const [first] = verification.findings.list;
    if (first !== undefined) {
      const { count } = verification.findings;
      return { kind: 'refuted', reason: `its certificate has ${count} findings: ${first.message}` };
    }
    const name = former === undefined ? '' : (table.byId(former.ownerId)?.name ?? '');
    const about = { kind: 'split', formerTreeId: former?.id ?? 0, formerName: name } as const;
    const certificate = toCertificate(engine, verification, about);
    return { kind: 'proven', put: () => putSplit(engine, table, tree, certificate) };
  } catch (error) {
    if (error instanceof ExternalError) return { kind: 'unreadable', reason: error.message };
    if (!isStoreError(error) || engine.failure !== undefined) throw error;
    engine.options.log({
      level: 'warn',
      event: 'split-without-certificate',
      message: `The split of tree ${tree.id} ends without a certificate: ${error.message}`,
    });
    return { kind: 'none' };
  }
}

function putSplit(
  engine: Engine,
  table: VdiskTable,
  tree: Tree,
  certificate: CertificateRecord,
): LogEntry[] {
  // It may have been renamed meanwhile, or deleted.
  const entry = entryOver(table, tree);
  return entry === undefined ? [] : [putCertificate(engine, entry, certificate)];
}

// -- at any time

export interface VerifyReport {
  readonly certificate: CertificateRecord;
  /** The first FINDINGS_MAX. */
  readonly findings: readonly Finding[];
}

export interface VerifyOptions {
  /** SHA-256 that the content must have: all of it is read. */
  readonly contentHash?: Uint8Array;
  /** Ends the reading of the content. */
  readonly signal?: AbortSignal;
}

/**
 * Verifies the vdisk or snapshot against all trees of the store, and keeps what it came to. Durable
 * when it resolves.
 * @throws {StoreError} invalid (it is external), not-found (it was deleted meanwhile), in-use (it
 *   changed while its content was read), out-of-space (for the record)
 */
export async function verifyEntry(
  parts: SplitParts,
  table: VdiskTable,
  entry: VdiskEntry,
  options: {
    readonly wanted: Uint8Array | undefined;
    readonly hashContent: () => Promise<Uint8Array>;
  },
): Promise<VerifyReport> {
  const { engine } = parts;
  if (entry.record.kind === 'external') {
    throw new StoreError('invalid', `${entry.name} is external: verify a clone of it`);
  }
  const { own, foreign } = lineageOfEntry(table, entry);
  const former = foreign ?? formerOf(engine, entry.record.certificate, own);
  const isStopped = (): boolean => entry.gone;
  const verification = await certify(parts, table, { own, former, others: 'all', isStopped });
  if (verification === undefined) throw gone(entry);
  const { findings } = verification;
  const contentHash = options.wanted === undefined ? undefined : await options.hashContent();
  if (contentHash !== undefined && !isSame(contentHash, options.wanted)) {
    const hash = Buffer.from(contentHash).toString('hex');
    findings.add('content', undefined, `${entry.name}: its content has the SHA-256 ${hash}`);
  }
  engine.assertAlive();
  if (entry.gone) throw gone(entry);
  engine.admit(0, 2, 'release');
  // In the step that keeps the certificate: a split may have ended meanwhile.
  const now = lineageOfEntry(table, entry).foreign;
  if (now !== undefined) {
    const names = `${nameOfTree(table, entry.head)} reads through ${nameOfTree(table, now)}`;
    findings.add('association', undefined, `${names}: it does not stand alone`);
  }
  const before = entry.record.certificate;
  const isSameFormer = former === undefined || former.id === before?.formerTreeId;
  const certificate = {
    ...toCertificate(engine, verification, {
      kind: 'verify',
      formerTreeId: isSameFormer ? (before?.formerTreeId ?? 0) : former.id,
      formerName: isSameFormer
        ? (before?.formerName ?? '')
        : (table.byId(former.ownerId)?.name ?? ''),
    }),
    contentHash,
  };
  await engine.logAct([putCertificate(engine, entry, certificate)]);
  return { certificate, findings: findings.list };
}

/** The backing store of the split that the last certificate speaks of, if it is still there. */
function formerOf(
  engine: Engine,
  certificate: CertificateRecord | undefined,
  own: readonly Tree[],
): Tree | undefined {
  if (certificate === undefined || certificate.formerTreeId === 0) return undefined;
  const tree = engine.table.get(certificate.formerTreeId);
  return tree === undefined || own.includes(tree) ? undefined : tree;
}

function gone(entry: VdiskEntry): StoreError {
  return new StoreError('not-found', `${entry.name} was deleted while it was verified`);
}

function isSame(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b?.length === a.length && a.every((byte, index) => byte === b[index]);
}

// -- both

function toCertificate(
  engine: Engine,
  { counts, findings, cpNumber }: Verification,
  about: Pick<CertificateRecord, 'kind' | 'formerTreeId' | 'formerName'>,
): CertificateRecord {
  return {
    ...about,
    ...counts,
    formerName: toFormerName(about.formerName),
    refutations: findings.count,
    wallMs: Math.max(0, Math.floor(engine.options.clock.wallMs())),
    cpNumber,
    contentHash: undefined,
  };
}

/** Changes the record in memory; the caller logs what is returned. */
function putCertificate(
  engine: Engine,
  entry: VdiskEntry,
  certificate: CertificateRecord,
): LogEntry {
  entry.record = { ...entry.record, certificate };
  engine.putVdisk(entry.index, entry.record);
  return { kind: 'vdisk', record: entry.record };
}
