/**
 * A Ceph with one S3 gateway, and on it: a bare S3 client, and a Keiki server. Beside them a server
 * on a file, for what an object store must not make slower. The same load generator for both.
 */
import { mkdirSync } from 'node:fs';
import { GIB } from '../../src/base/units.js';
import { CEPH_KEYS, RealCeph } from '../../test/support/real-ceph.js';
import { newBucket } from '../../test/support/s3-client.js';
import type { LoadJob } from '../nbd/load-connection.js';
import { LoadProcess } from '../nbd/load-process.js';
import { buildServer, KeikiServer, type ServerProcess } from '../nbd/nbd-servers.js';
import { KeikiApi } from '../split/keiki-api.js';
import { BareClient } from './bare-client.js';

const STORE_BYTES = 8 * GIB;
const SEED = 4711;

/** A server, and one disk of it that the load goes to. */
export interface Served {
  readonly name: string;
  readonly server: KeikiServer;
  readonly api: KeikiApi;
}

export class ObjectStoreLab {
  readonly ceph: RealCeph;
  readonly bare: BareClient;
  readonly onS3: Served;
  readonly inPlace: Served;
  readonly #load = new LoadProcess();
  readonly #build = buildServer();
  readonly #servers: ServerProcess[] = [];

  static async start(folder: string): Promise<ObjectStoreLab> {
    const ceph = await RealCeph.start(1);
    try {
      const options = { endpoints: ceph.endpoints, deadlineMs: 30_000 };
      // 32 writers of the bare client have as many requests under way.
      const bare = await newBucket({ ...options, bucket: 'bare', requests: 32 });
      (await newBucket({ ...options, bucket: 'keiki' })).close();
      const lab = new ObjectStoreLab(folder, ceph, new BareClient(bare));
      await lab.#startServers();
      return lab;
    } catch (error) {
      await ceph.stop();
      throw error;
    }
  }

  private constructor(folder: string, ceph: RealCeph, bare: BareClient) {
    this.ceph = ceph;
    this.bare = bare;
    const environment = {
      AWS_ACCESS_KEY_ID: CEPH_KEYS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: CEPH_KEYS.secretAccessKey,
    };
    this.onS3 = this.#served(`${folder}/s3`, { store: 's3://keiki/bench', environment });
    this.inPlace = this.#served(`${folder}/file`);
  }

  #served(folder: string, place?: ConstructorParameters<typeof KeikiServer>[2]): Served {
    mkdirSync(folder);
    const server = new KeikiServer(folder, this.#build, place);
    return { name: folder, server, api: new KeikiApi(server.apiPath) };
  }

  async #startServers(): Promise<void> {
    const endpoint = this.ceph.endpoints.flatMap((url) => ['--s3-endpoint', url]);
    this.#servers.push(await this.onS3.server.start(STORE_BYTES, endpoint));
    this.#servers.push(await this.inPlace.server.start(GIB, ['--store-preallocate']));
  }

  /** The load goes to this vdisk or snapshot from now on. */
  async open({ name, server }: Served, exportName: string): Promise<void> {
    await this.#load.open(name, server.socketPath, [exportName]);
  }

  /** Operations a second of one job. */
  async rate({ name }: Served, job: Omit<LoadJob, 'seed'>, seed = SEED): Promise<number> {
    const [result] = await this.#load.run(name, { ...job, seed });
    return result === undefined ? Number.NaN : result.operations / (result.ms / 1000);
  }

  async stop(): Promise<void> {
    this.#load.close();
    for (const server of this.#servers) await server.stop();
    await this.ceph.stop();
    this.#build.remove();
  }
}
