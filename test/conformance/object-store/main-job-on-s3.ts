/** The quickstart, with its store on a real Ceph. */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { RealCeph } from '../../support/real-ceph.js';
import { newBucket } from '../../support/s3-client.js';

/** Against hanging. */
const TIMEOUT_MS = 600_000;

export async function mainJobOn(ceph: RealCeph, bucket: string): Promise<void> {
  // It runs what is built. Where that is up to date this takes a moment.
  execFileSync('flock', ['tools/setup.sh', 'sh', 'tools/setup.sh'], { stdio: 'ignore' });
  (await newBucket({ endpoints: ceph.endpoints, bucket })).close();
  const folder = mkdtempSync(join(tmpdir(), 'keiki-s3-job-'));
  const where = [`--store=s3://${bucket}/main/job`, `--s3-endpoint=${ceph.endpoints.join(',')}`];
  const args = ['--import', 'tsx', 'tools/quickstart.ts', `--dir=${folder}`, '--image-mib=64'];
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [...args, ...where], {
      env: { ...process.env, ...ceph.environment },
      timeout: TIMEOUT_MS,
    });
    assert.match(stdout, /the store is a new object log/);
    assert.equal([...stdout.matchAll(/^ +proven /gm)].length, 8, stdout);
    assert.match(stdout, /Every clone is what it should be/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
