/** From settings to an S3 object store. Nothing is asked of it yet. */
import { defaultProvider } from '@aws-sdk/credential-provider-node';
import { StoreError } from '../base/store-error.js';
import type { Clock } from '../env/clock.js';
import type { Random } from '../env/random.js';
import { S3Gateway } from './s3-gateway.js';
import { S3ObjectStore } from './s3-object-store.js';
import { type CredentialSource, S3Signer } from './s3-signer.js';

export interface S3Settings {
  readonly bucket: string;
  /** Gateways of one store; none: Amazon's, of the region. */
  readonly endpoints: readonly string[];
  readonly region: string | undefined;
  /** auto: host for Amazon and a bucket that may stand in a name, else path. */
  readonly addressing: 'auto' | 'path' | 'host';
  readonly requests: number;
  /** From a request to its whole answer. */
  readonly deadlineMs: number;
  readonly patienceMs: number;
  readonly clock: Clock;
  readonly random: Random;
  /** Default: what the AWS tools find. */
  readonly credentials?: CredentialSource;
}

/** What Ceph and others call theirs, where nobody says otherwise. */
const REGION_OF_OTHERS = 'us-east-1';

/** @throws {StoreError} invalid: bucket, endpoint or region cannot be meant */
export function openS3(settings: S3Settings): S3ObjectStore {
  const { bucket, clock, random, requests, deadlineMs, patienceMs } = settings;
  // Source: Amazon S3 User Guide, "General purpose bucket naming rules"; others allow capitals.
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$/.test(bucket)) {
    throw new StoreError('invalid', `"${bucket}" is no name of a bucket`);
  }
  const region = settings.region ?? (settings.endpoints.length > 0 ? REGION_OF_OTHERS : undefined);
  if (region === undefined) {
    const next = 'give --s3-region (or AWS_REGION), or --s3-endpoint for another store than Amazon';
    throw new StoreError('invalid', `s3://${bucket}: in which region? ${next}`);
  }
  const credentials = settings.credentials ?? defaultProvider({ clientConfig: { region } });
  const signer = new S3Signer(region, credentials, clock);
  const addressing = addressingOf(settings);
  const gateways = endpointsOf(settings, region).map(
    (endpoint) => new S3Gateway({ endpoint, bucket, addressing, signer, clock, deadlineMs }),
  );
  return new S3ObjectStore({ bucket, gateways, credentials, clock, random, requests, patienceMs });
}

function addressingOf({ addressing, endpoints, bucket }: S3Settings): 'path' | 'host' {
  if (addressing !== 'auto') return addressing;
  // Amazon's certificate covers one label before its name.
  return endpoints.length === 0 && /^[a-z0-9-]+$/.test(bucket) ? 'host' : 'path';
}

function endpointsOf({ endpoints }: S3Settings, region: string): URL[] {
  if (endpoints.length === 0) {
    const domain = region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com';
    return [new URL(`https://s3.${region}.${domain}`)];
  }
  return endpoints.map((text) => {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    const isPlain =
      url !== undefined &&
      ['http:', 'https:'].includes(url.protocol) &&
      url.pathname === '/' &&
      url.search === '' &&
      url.username === '';
    if (isPlain) return url;
    const message = `"${text}" is no endpoint: write http://HOST:PORT or https://HOST`;
    throw new StoreError('invalid', message);
  });
}
