/** All handlers together. */
import type { ControlPlane } from '../control-plane.js';
import type { Handlers } from '../handler.js';
import { contentHandlers } from './content-handlers.js';
import { publicationHandlers } from './publication-handlers.js';
import { serverHandlers } from './server-handlers.js';
import { splitHandlers } from './split-handlers.js';
import { vdiskHandlers } from './vdisk-handlers.js';

export function allHandlers(plane: ControlPlane): Handlers {
  return {
    ...vdiskHandlers(plane),
    ...publicationHandlers(plane),
    ...splitHandlers(plane),
    ...contentHandlers(plane),
    ...serverHandlers(plane),
  };
}
