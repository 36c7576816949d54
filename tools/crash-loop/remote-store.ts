/**
 * The store of a running server as the simulator's acts see it: the control API for what manages,
 * libnbd for what reads and writes.
 *
 * 1. What a server refuses is a StoreError of the same kind; the end of the server is `closed`.
 * 2. Vdisks whose names begin with OUTSIDE are not the model's: other loads have them.
 */

import type { JobKind } from '../../sim/coverage.js';
import type { LivingStore } from '../../sim/life.js';
import { STORE_ERROR_KINDS, StoreError } from '../../src/base/store-error.js';
import { ApiClient, type Ask } from '../../src/cli/api-client.js';
import { CommandError } from '../../src/cli/failure.js';
import type { RouteId } from '../../src/cli/routes.js';
import { fromHash } from '../../src/control/certificates.js';
import type { AnswerOf } from '../../src/control/operations.js';
import type * as api from '../../src/control/schemas.js';
import { systemClock } from '../../src/env/system-clock.js';
import { DEFAULT_POLICY } from '../../src/layout/split-policy.js';
import type { SplitJob, SplitOptions } from '../../src/main/store.js';
import type { VdiskInfo } from '../../src/main/store-info.js';
import type { VerifyReport } from '../../src/split/certificate/make-certificate.js';
import type { PolicyChange } from '../../src/split/policy-change.js';
import type { SplitChange } from '../../src/split/split-jobs.js';
import type { DiffExtent } from '../../src/vdisk/diff.js';
import type { ScanReport } from '../../src/vdisk/scan.js';
import { LibnbdClients } from './libnbd-clients.js';
import { RemoteVdisk } from './remote-vdisk.js';

export const OUTSIDE = 'outside';
const POLL_MS = 5;

export interface ServerAddress {
  readonly apiSocket: string;
  readonly nbdSocket: string;
}

export class RemoteStore implements LivingStore {
  readonly #api: ApiClient;
  readonly #clients = new LibnbdClients();
  readonly #nbdSocket: string;
  readonly #vdisks = new Map<string, RemoteVdisk>();
  readonly #splits = new Map<string, 'copy' | 'share'>();
  #renaming: Promise<void> = Promise.resolve();

  constructor({ apiSocket, nbdSocket }: ServerAddress) {
    const address = { kind: 'unix', path: apiSocket } as const;
    const { signal } = new AbortController();
    this.#api = new ApiClient({ address, token: undefined, signal });
    this.#nbdSocket = nbdSocket;
  }

  uri(name: string): string {
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${this.#nbdSocket}`;
  }

  async createVdisk(name: string, sizeBytes: number): Promise<void> {
    await this.call('createVdisk', { body: { name, sizeBytes } });
  }

  async snapshot(
    items: readonly { readonly vdisk: string; readonly snapshot: string }[],
  ): Promise<void> {
    await this.call('createSnapshots', { body: { items: [...items] } });
  }

  async clone(source: string, name: string): Promise<void> {
    await this.call('createClones', { body: { source, names: [name] } });
  }

  async resize(name: string, sizeBytes: number): Promise<void> {
    await this.call('changeVdisk', { params: { name }, body: { sizeBytes } });
  }

  async rename(name: string, newName: string): Promise<void> {
    const renamed = this.call('changeVdisk', { params: { name }, body: { name: newName } });
    const both = this.#renaming.then(async () => {
      await renamed.then(
        () => this.#noteRenamed(name, newName),
        () => undefined,
      );
    });
    this.#renaming = both;
    await renamed;
    await both;
  }

  /** A snapshot goes by the name of its vdisk. */
  #noteRenamed(name: string, newName: string): void {
    for (const [key, vdisk] of [...this.#vdisks]) {
      if (key !== name && !key.startsWith(`${name}@`)) continue;
      this.#vdisks.delete(key);
      vdisk.name = newName + key.slice(name.length);
      this.#vdisks.set(vdisk.name, vdisk);
    }
  }

  createExternal(name: string, path: string): Promise<never> {
    const message = `${name} cannot be made: a server opens no file that a client names, ${path}`;
    return Promise.reject(new StoreError('unsupported', message));
  }

  /** A server does not delete what somebody has open. */
  async delete(name: string): Promise<void> {
    const act = async (): Promise<void> => {
      await this.#noClient(name);
      await this.call('deleteVdisk', { params: { name }, query: {} });
    };
    const vdisk = this.#vdisks.get(name);
    await (vdisk === undefined ? act() : vdisk.alone(act));
    this.#vdisks.delete(name);
  }

  async split(name: string, { mode, ...options }: SplitOptions): Promise<Pick<SplitJob, 'done'>> {
    const body = { mode, ...toBody(options) };
    const { id } = await this.call('splitVdisk', { params: { name }, body });
    this.#splits.set(id, mode);
    const done = this.#jobDone(id).finally(() => this.#splits.delete(id));
    // Whoever is not told of its end is told of the server's.
    done.catch(() => undefined);
    return { done };
  }

  async changeSplit(name: string, { mode, ...options }: SplitChange): Promise<void> {
    const body = { ...(mode === undefined ? {} : { mode }), ...toBody(options) };
    await this.call('changeSplit', { params: { name }, body });
  }

  async pauseSplit(name: string): Promise<void> {
    await this.call('changeSplit', { params: { name }, body: { isPaused: true } });
  }

  async resumeSplit(name: string): Promise<void> {
    await this.call('changeSplit', { params: { name }, body: { isPaused: false } });
  }

  async cancelSplit(name: string, options: { readonly undo?: boolean } = {}): Promise<void> {
    const query = options.undo === true ? ({ undo: 'true' } as const) : {};
    await this.call('cancelSplit', { params: { name }, query });
  }

  async #jobDone(id: string): Promise<void> {
    for (;;) {
      const { state, error } = await this.call('getJob', { params: { id } });
      if (state === 'done') return;
      if (state === 'failed') throw asStoreError(error?.kind ?? '', error?.detail ?? id);
      if (state === 'cancelled') throw new StoreError('not-found', `${id} was cancelled`);
      await sleep();
    }
  }

  async *diff(from: string | undefined, to: string): AsyncGenerator<DiffExtent> {
    const query = from === undefined ? { to } : { from, to };
    yield* (await this.call('diff', { query })).extents;
  }

  async verify(name: string): Promise<VerifyReport> {
    const answer = await this.call('verifyVdisk', { params: { name }, body: {} });
    return {
      certificate: fromCertificate(answer.certificate),
      findings: answer.findings.map((each) => ({ ...each, fbn: each.fbn ?? undefined })),
    };
  }

  async scan(name: string): Promise<ScanReport> {
    return this.call('scanVdisk', { params: { name } });
  }

  async consistencyPoint(): Promise<void> {
    await this.call('makeConsistencyPoint', {});
  }

  /** Resolves when a look has found no background job. */
  async idle(): Promise<void> {
    for (;;) {
      const { store } = await this.call('getStats', {});
      if (store.background === null && store.splitsActive === 0) return;
      await sleep();
    }
  }

  async list(): Promise<VdiskInfo[]> {
    const { vdisks } = await this.call('listVdisks', {});
    return vdisks.filter(({ name }) => !name.startsWith(OUTSIDE)).map(toInfo);
  }

  async has(name: string): Promise<boolean> {
    const { vdisks } = await this.call('listVdisks', {});
    return vdisks.some((vdisk) => vdisk.name === name);
  }

  /** Resolves when somebody has the vdisk open. */
  async hasClient(name: string): Promise<void> {
    while ((await this.call('getVdisk', { params: { name } })).clientCount === 0) await sleep();
  }

  /** Closes what is open here of it; resolves when nobody else has it open either. */
  async letGo(name: string): Promise<void> {
    await this.#vdisks.get(name)?.alone(async () => undefined);
    await this.#noClient(name);
  }

  async #noClient(name: string): Promise<void> {
    while ((await this.call('getVdisk', { params: { name } })).clientCount > 0) await sleep();
  }

  vdisk(name: string): RemoteVdisk {
    let vdisk = this.#vdisks.get(name);
    if (vdisk === undefined) {
      vdisk = new RemoteVdisk(name, {
        clients: this.#clients,
        uriOf: (now) => this.uri(now),
        renamed: () => this.#renaming,
        mapOf: async (now, offset, length) => {
          const ask = { params: { name: now }, query: { offset, length } };
          return (await this.call('mapVdisk', ask)).extents;
        },
      });
      this.#vdisks.set(name, vdisk);
    }
    return vdisk;
  }

  /** Splits that were begun here and whose end nobody has seen. */
  jobs(): JobKind[] {
    const modes = new Set(this.#splits.values());
    return [...modes].map((mode) => `${mode}-split` as const);
  }

  async close(): Promise<void> {
    this.#api.close();
    await this.#clients.close();
  }

  /** Whatever else the API has. @throws {StoreError} */
  async call<K extends RouteId>(id: K, ask: Ask<K>): Promise<AnswerOf<K>> {
    try {
      return await this.#api.call(id, ask);
    } catch (error) {
      if (error instanceof CommandError) throw asStoreError(error.kind, error.message);
      throw error;
    }
  }
}

/** @throws a kind that no act may meet */
function asStoreError(kind: string, message: string): Error {
  const known = STORE_ERROR_KINDS.find((each) => each === kind);
  if (known !== undefined) return new StoreError(known, message);
  if (kind === 'failed' || kind === 'no-server') return new StoreError('closed', message);
  return new Error(`${kind}: ${message}`);
}

function toInfo({
  backing,
  isMerging,
  split,
  certificate,
  published,
  ...same
}: api.Vdisk): VdiskInfo {
  return {
    ...same,
    external: undefined,
    published: published ?? undefined,
    certificate: certificate === null ? undefined : fromCertificate(certificate),
    backing: isMerging ? '' : (backing ?? undefined),
    split: split === null ? undefined : toState(split),
  };
}

/** Windows are left out: a run ends before one opens. */
function toBody({ window: _, ...options }: PolicyChange): Omit<PolicyChange, 'window'> {
  return options;
}

function toState(split: NonNullable<api.Vdisk['split']>): VdiskInfo['split'] {
  const { reason, rateBytesPerSecond } = split;
  return {
    ...split,
    reason: reason ?? undefined,
    rateBytesPerSecond: rateBytesPerSecond ?? undefined,
    // The acts do not look at it.
    policy: DEFAULT_POLICY,
  };
}

function fromCertificate({ formerBacking, contentHash, ...same }: api.Certificate) {
  return {
    ...same,
    wallMs: Date.parse(same.at),
    formerTreeId: formerBacking?.treeId ?? 0,
    formerName: formerBacking?.name ?? '',
    contentHash: contentHash === null ? undefined : fromHash(contentHash),
  };
}

function sleep(): Promise<void> {
  return new Promise((resolve) => systemClock.setTimer(POLL_MS, resolve));
}
