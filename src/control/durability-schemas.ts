/** What the control API says of where a flush is when it is answered. */
import { Type } from 'typebox';
import { bytes, count, oneOf } from './schema-kit.js';

export const Durability = oneOf(
  ['device', 'remote', 'local'],
  'Where a flush is when it is answered: on the device of the store, in the object store, or in ' +
    'the local log of the server, and in the object store a little later',
);

export const LocalLogStats = Type.Object({
  sizeBytes: bytes('Size of the local log'),
  lagBytes: bytes('Of it, what the object store lacks'),
  lagMs: Type.Number({ minimum: 0, description: 'Age of the oldest of it' }),
  lagMsMax: Type.Number({ description: 'From this age on a flush waits for the object store' }),
  groups: count('Groups written since the start'),
  waits: count('Flushes that waited for the object store: the log was full, or too old'),
});
