/** Starts a worker that hangs, tells its process id, and waits to be killed. */
import { fork } from 'node:child_process';

const worker = fork(process.argv[2], [], { serialization: 'advanced', stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
worker.send({
  id: 1,
  generation: 1,
  call: 'prepare',
  args: [{ level: 'hang', batch: 1, seqLen: 1, kvHeads: 1, headDim: 1 }],
});
process.send(worker.pid);
setInterval(() => undefined, 1000);
