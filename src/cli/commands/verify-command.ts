/** Certificates: keiki verify. */
import { InvalidArgumentError } from 'commander';
import type { Verification } from '../../control/schemas.js';
import type { CommandRow, Context } from '../command-table.js';
import { describeCertificate } from '../describe-certificate.js';
import { CommandError, EXIT_CODES } from '../failure.js';
import { ANY_NAME_ROW } from './rows.js';

const HASH = /^(sha256:)?([0-9a-f]{64})$/i;

function toContentHash(text: string): string {
  const digits = HASH.exec(text)?.[2];
  if (digits !== undefined) return `sha256:${digits.toLowerCase()}`;
  throw new InvalidArgumentError('a hash is sha256: and 64 hexadecimal digits.');
}

const verify: CommandRow = {
  name: 'verify',
  summary: 'Proves that a vdisk stands alone, or says what speaks against it',
  usage: 'NAME [--content-hash HASH | --hash]',
  details:
    "A walk over its metadata and that of all others: no block that it names is another one's, " +
    'each is in use, and what a split filled in has the checksums of what it came from, as ' +
    'long as that is there. Clients go on. What it came to is kept: `keiki show` tells it. Ends ' +
    'with 9 if something speaks against it.',
  arguments: [ANY_NAME_ROW],
  flags: [
    {
      name: 'content-hash',
      takes: 'HASH',
      completes: 'nothing',
      summary: 'read all of it as well, and compare its SHA-256 with this one',
      parse: toContentHash,
    },
    {
      name: 'hash',
      summary: 'only read all of it and print its SHA-256: take it before, of a snapshot',
    },
  ],
  examples: ['keiki verify web1', 'keiki verify golden@v1 --hash'],
  run: async (context, { arguments: [given], flags }) => {
    const name = given as string;
    const { api, output } = context;
    const contentHash = flags.contentHash as string | undefined;
    if (flags.hash === true) {
      if (contentHash !== undefined) {
        throw new CommandError('usage', '--hash takes a hash, --content-hash compares with one');
      }
      const answer = await api.call('hashVdisk', { params: { name } });
      if (context.isJson) await output.printJson(answer);
      else await output.print(answer.contentHash);
      return undefined;
    }
    const body = contentHash === undefined ? {} : { contentHash };
    const answer = await api.call('verifyVdisk', { params: { name }, body });
    if (context.isJson) await output.printJson(answer);
    else await print(context, answer);
    return answer.certificate.result === 'proven' ? undefined : EXIT_CODES.faults;
  },
};

async function print(
  { output }: Context,
  { name, certificate, findings }: Verification,
): Promise<void> {
  const lines = describeCertificate(certificate).map((line) => `  ${line}`);
  const result = output.style(
    certificate.result === 'proven' ? 'green' : 'red',
    certificate.result,
  );
  await output.print([`${name}: ${result}`, ...lines].join('\n'));
  for (const { kind, message } of findings) await output.print(`  ${kind}: ${message}`);
  const rest = certificate.refutations - findings.length;
  if (rest > 0) await output.print(`  and ${rest} more`);
}

export const VERIFY_COMMANDS: readonly CommandRow[] = [verify];
