/** The worker as a utility process: Electron's own child, with Electron's Node in it. */
import { utilityProcess } from 'electron';
import { lastWordsOf, type SpawnWorker } from '../../worker/spawn.ts';

export const utilityWorker =
  (script: string): SpawnWorker =>
  ({ onMessage, onEnd }) => {
    const child = utilityProcess.fork(script, [], { stdio: 'pipe', serviceName: 'FastMQA engine' });
    const lastWords = lastWordsOf([child.stdout, child.stderr]);
    let isUnwanted = false;
    /** Its own `kill` asks with SIGTERM, which the worker does not hear. */
    const kill = (): void => {
      isUnwanted = true;
      if (child.pid === undefined) return;
      try {
        process.kill(child.pid, 'SIGKILL');
      } catch {
        // It ended by itself in the meantime.
      }
    };
    child.on('spawn', () => {
      if (isUnwanted) kill();
    });
    child.on('message', onMessage);
    child.on('exit', (code) => onEnd(`worker ended with exit code ${code}${lastWords()}`));
    return { send: (request) => child.postMessage(request), kill };
  };
