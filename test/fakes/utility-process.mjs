/** Stands in for Electron around a utility process: the real worker script, with a parent port in place of its pipe. */
import { pathToFileURL } from 'node:url';

process.parentPort = {
  on: (event, listener) => process.on(event, (data) => listener({ data })),
  postMessage: (message) => process.send(message),
};
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
await import(pathToFileURL(process.argv[2]).href);
