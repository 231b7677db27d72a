/** Starts a worker that hangs, tells its process id, and waits to be killed. */
import { spawn } from 'node:child_process';
import { encodeFrame, pipeDescriptor } from '../../dist/src-main/worker/frames.js';

const worker = spawn(process.execPath, [process.argv[2]], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
const request = {
  id: 1,
  generation: 1,
  call: 'prepare',
  args: [{ level: 'hang', batch: 1, seqLen: 1, kvHeads: 1, headDim: 1 }],
};
worker.stdio[pipeDescriptor].write(encodeFrame(request));
process.send(worker.pid);
setInterval(() => undefined, 1000);
