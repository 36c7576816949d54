/** fio's own NBD client, for one figure beside the load generator's. */
import { runCommand } from '../harness/scratch.js';

const SECONDS = 2;

interface FioReport {
  readonly jobs: readonly Readonly<Record<'read' | 'write', { readonly iops: number }>>[];
}

/** 4 KiB operations at random places, 32 under way, a second. */
export function fioRate(uri: string, kind: 'read' | 'write'): number {
  const text = runCommand('fio', [
    '--name=limit',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=rand${kind}`,
    '--bs=4k',
    '--iodepth=32',
    '--time_based',
    `--runtime=${SECONDS}`,
    '--output-format=json',
  ]);
  const report = JSON.parse(text.slice(text.indexOf('{'))) as FioReport;
  return report.jobs[0]?.[kind].iops ?? Number.NaN;
}
