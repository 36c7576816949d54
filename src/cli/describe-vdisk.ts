/** Vdisks, splits and jobs in words for people. Pure. */
import { formatBytes } from '../base/units.js';
import type { Attachment, Certificate, Client, Job, Split, Vdisk } from '../control/schemas.js';
import { describeCertificate } from './describe-certificate.js';
import { formatCount, formatDuration, formatExactly, formatRate, formatShare } from './figures.js';
import { type Column, formatFacts, formatTable } from './table.js';

const LIST_COLUMNS: readonly Column[] = [
  { title: 'NAME' },
  { title: 'SIZE', align: 'right' },
  { title: 'MAPPED', align: 'right' },
  { title: 'OWN', align: 'right' },
  { title: 'SHARED', align: 'right' },
  { title: 'BACKING' },
  { title: 'STATE' },
];

export function formatList(
  vdisks: readonly Vdisk[],
  styleTitle: (title: string) => string,
): string {
  const rows = vdisks.map((vdisk) => [
    vdisk.name,
    formatBytes(vdisk.sizeBytes),
    formatBytes(vdisk.mappedBytes),
    formatBytes(vdisk.ownBytes),
    formatBytes(vdisk.sharedBytes),
    vdisk.backing ?? '',
    stateOf(vdisk),
  ]);
  return formatTable(LIST_COLUMNS, rows, styleTitle);
}

/** What is special about it just now. */
function stateOf({ split, isMerging, clientCount }: Vdisk): string {
  const parts: string[] = [];
  if (split !== null) {
    const share = formatShare(split.positionBytes, split.endBytes);
    parts.push(split.state === 'filling' ? `split ${share}` : `split ${split.state}`);
  }
  if (isMerging) parts.push('backing deleted');
  if (clientCount > 0) parts.push(formatCount(clientCount, 'client'));
  return parts.join(', ');
}

export interface VdiskFacts {
  readonly vdisk: Vdisk;
  /** All of the store: for the lineage. */
  readonly all: readonly Vdisk[];
  readonly attachment: Attachment | undefined;
  readonly splitJob: Job | undefined;
  readonly scan: { readonly readThroughBytes: number; readonly givesBackBytes: number } | undefined;
}

const FLUSH_MEANS: Record<Vdisk['durability'], string> = {
  device: 'answered when it is on the device of the store',
  remote: 'answered when it is in the object store',
  local: 'answered when it is in the local log; seconds later it is in the object store',
};

export function formatVdisk(facts: VdiskFacts, styleName: (name: string) => string): string {
  const { vdisk, all, attachment, splitJob, scan } = facts;
  const { kind, sizeBytes, mappedBytes, ownBytes, sharedBytes, split, external } = vdisk;
  const shares = `${formatBytes(ownBytes)} of its own, ${formatBytes(sharedBytes)} shared`;
  const lines: [string, string][] = [
    ['kind', kind === 'vdisk' ? 'vdisk' : `${kind}, read-only`],
    ['size', formatExactly(sizeBytes)],
    ['mapped', `${formatExactly(mappedBytes)}: ${shares}`],
    ['sparse', `${formatShare(sizeBytes - mappedBytes, sizeBytes)} of its size is not mapped here`],
  ];
  if (kind === 'vdisk') lines.push(['flush', FLUSH_MEANS[vdisk.durability]]);
  if (scan !== undefined) {
    lines.push(['through', `${formatExactly(scan.readThroughBytes)} read from backing stores`]);
    lines.push(['deletion', `gives ${formatExactly(scan.givesBackBytes)} back`]);
  }
  const lineage = lineageOf(vdisk, all);
  if (lineage.length > 1) lines.push(['lineage', lineage.join(' -> ')]);
  if (vdisk.isMerging)
    lines.push(['backing', 'deleted: it takes over what is left when nobody else needs it']);
  if (external !== null) {
    const { files, trouble } = external;
    lines.push([external.format === 'published' ? 'snapshot' : 'files', files.join(', ')]);
    if (trouble !== null) lines.push(['trouble', trouble]);
  }
  if (vdisk.published !== null) lines.push(['published', `as ${vdisk.published}`]);
  if (split !== null) lines.push(...splitLines(split, splitJob));
  if (vdisk.certificate !== null) lines.push(...certificateLines(vdisk.certificate));
  const snapshots = all.filter(({ name }) => name.startsWith(`${vdisk.name}@`));
  if (snapshots.length > 0) lines.push(['snapshots', namesOf(snapshots.map(({ name }) => name))]);
  if (vdisk.holders.length > 0) lines.push(['read by', namesOf(vdisk.holders)]);
  if (vdisk.clients.length > 0) lines.push(['clients', clientsOf(vdisk.clients)]);
  if (attachment !== undefined) {
    const clients = clientsOf(attachment.clients);
    const who = clients === '' ? 'no client there' : `clients ${clients}`;
    lines.push(['attached', `${attachment.uri}, ${who}`]);
  }
  return `${styleName(vdisk.name)}\n${formatFacts(lines)}`;
}

/** It, what it reads through, what that reads through, ... */
function lineageOf(vdisk: Vdisk, all: readonly Vdisk[]): string[] {
  const names = [vdisk.name];
  const byName = new Map(all.map((each) => [each.name, each]));
  let next = vdisk.backing ?? undefined;
  while (next !== undefined && !names.includes(next)) {
    names.push(next);
    next = byName.get(next)?.backing ?? undefined;
  }
  return names;
}

const NAMES_SHOWN = 12;

function namesOf(names: readonly string[]): string {
  if (names.length <= NAMES_SHOWN) return names.join(', ');
  return `${names.slice(0, NAMES_SHOWN).join(', ')} and ${names.length - NAMES_SHOWN} more`;
}

/** Number and address, as the log and refusals name them. */
function clientsOf(clients: readonly Client[]): string {
  return namesOf(
    clients.map(({ id, peer }) => `${id} (${peer === 'unix' ? 'unix socket' : peer})`),
  );
}

function paceOf({ policy, limitedBy, rateBytesPerSecond, reservedBytes }: Split): string {
  const { pace, rateBytesPerSecond: bound, window } = policy;
  const words = [pace === 'rate' ? `at most ${formatRate(bound ?? 0)}` : pace];
  if (rateBytesPerSecond !== null && pace !== 'rate') {
    words.push(`now ${formatRate(rateBytesPerSecond)} (${LIMITS[limitedBy]})`);
  }
  if (window !== null) words.push(`between ${window} UTC`);
  if (reservedBytes > 0) words.push(`${formatBytes(reservedBytes)} set aside`);
  return words.join(', ');
}

const LIMITS: Readonly<Record<Split['limitedBy'], string>> = {
  nothing: 'nothing holds it back',
  rate: 'its bound',
  clients: 'clients are busy',
  latency: 'the latency of clients',
  floor: 'its floor',
};

function certificateLines(certificate: Certificate): [string, string][] {
  const { result, refutations } = certificate;
  const [when = '', ...rest] = describeCertificate(certificate);
  const what = result === 'proven' ? 'stands alone' : formatCount(refutations, 'finding');
  const lines: [string, string][] = [['verified', `${result} (${what}), ${when}`]];
  for (const text of rest) lines.push(['', text]);
  return lines;
}

function splitLines(split: Split, job: Job | undefined): [string, string][] {
  const { mode, state, positionBytes, endBytes, filledBytes, badRanges } = split;
  const share = formatShare(positionBytes, endBytes);
  const lines: [string, string][] = [
    ['split', `${mode}, ${state} at ${share}, ${formatBytes(filledBytes)} filled`],
  ];
  if (split.reason !== null) lines.push(['waits for', split.reason]);
  lines.push(['pace', paceOf(split)]);
  if (job !== undefined && job.state === 'running' && job.rateBytesPerSecond > 0) {
    const eta = job.etaSeconds === null ? '' : `, ETA ${formatDuration(job.etaSeconds)}`;
    lines.push(['job', `${job.id}, ${formatRate(job.rateBytesPerSecond)}${eta}`]);
  }
  for (const { offset, length } of badRanges.slice(0, NAMES_SHOWN)) {
    lines.push(['bad', `${length} bytes at ${offset} cannot be read from the backing store`]);
  }
  return lines;
}
