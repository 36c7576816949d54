/** Sockets and ports of single vdisks: attach and detach. */
import { resolve } from 'node:path';
import { InvalidArgumentError } from 'commander';
import type { Attach, Attachment } from '../../control/schemas.js';
import type { CommandRow } from '../command-table.js';
import { CommandError } from '../failure.js';
import { ANY_NAME_ROW } from './rows.js';

const attach: CommandRow = {
  name: 'attach',
  summary: 'An NBD socket or port of its own for one vdisk or snapshot',
  usage: 'NAME --socket PATH | NAME --port [HOST:]PORT',
  details:
    'There it is the default export, so that clients need no name. It lasts until the vdisk is ' +
    'detached or deleted: a server that is started again opens it again.',
  arguments: [ANY_NAME_ROW],
  flags: [
    { name: 'socket', takes: 'PATH', completes: 'file', summary: 'path of a unix socket to make' },
    {
      name: 'port',
      takes: '[HOST:]PORT',
      completes: 'nothing',
      summary: 'TCP port, on 127.0.0.1 if no host is given; 0 takes a free one',
      parse: toTcp,
    },
  ],
  examples: ['keiki attach web1 --socket /run/keiki/web1.sock', 'keiki attach web1 --port 10810'],
  run: async (context, { arguments: [given], flags }) => {
    const { socket, port } = flags as { readonly socket?: string; readonly port?: Attach };
    const body = socket === undefined ? port : { socket: resolve(socket) };
    if (body === undefined || (socket !== undefined && port !== undefined)) {
      throw new CommandError('usage', 'attach takes one of --socket PATH and --port [HOST:]PORT');
    }
    const ask = { params: { name: given as string }, body };
    const attachment = await context.api.call('attachVdisk', ask);
    if (context.isJson) await context.output.printJson(attachment);
    else await context.output.print(formatAttachment(attachment));
    return undefined;
  },
};

const detach: CommandRow = {
  name: 'detach',
  summary: 'Takes its own NBD socket or port from a vdisk',
  usage: 'NAME',
  details: 'Clients that are connected there are answered, and then cut off.',
  arguments: [ANY_NAME_ROW],
  flags: [],
  examples: ['keiki detach web1'],
  run: async (context, { arguments: [given] }) => {
    const name = given as string;
    await context.api.call('detachVdisk', { params: { name } });
    if (context.isJson) await context.output.printJson({ detached: [name] });
    await context.say(`${name}: detached`);
    return undefined;
  },
};

function toTcp(text: string): Attach {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]:|([^\s:[\]/]+):)?([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw new InvalidArgumentError('PORT or HOST:PORT is meant.');
  const host = match[1] ?? match[2];
  return host === undefined ? { port } : { host, port };
}

/** For a shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Where it is, and the lines that use it. */
export function formatAttachment({ vdisk, address, uri, readOnly }: Attachment): string {
  const quoted = `'${uri}'`;
  const isReadOnly = readOnly ? ',readonly=on' : '';
  const drive = `'file=${uri.replaceAll(',', ',,')},format=raw,if=virtio${isReadOnly}'`;
  const kernel =
    address.kind === 'unix' ? `-unix ${quote(address.path)}` : `${address.host} ${address.port}`;
  return [
    `${vdisk}: at ${uri}${readOnly ? ', read-only' : ''}`,
    '',
    `  qemu-img info ${quoted}`,
    `  qemu-system-x86_64 -m 1G -drive ${drive}`,
    `  nbd-client ${kernel} /dev/nbd0`,
    `  mkdir -p mnt && nbdfuse ${readOnly ? '-r ' : ''}mnt/${vdisk}.img ${quoted} &`,
  ].join('\n');
}

export const ATTACH_COMMANDS: readonly CommandRow[] = [attach, detach];
