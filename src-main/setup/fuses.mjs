/**
 * The fuses of a packaged app: switches in the binary of Electron that nobody flips back without breaking its signature.
 * `node src-main/setup/fuses.mjs BINARY` sets all nine and reads them back; run it before the package is signed. The Electron
 * that `npm start` uses is left as it comes: it loads the app from a folder, and its tests attach to it.
 */
import { fileURLToPath } from 'node:url';
import { FuseState, FuseV1Options, FuseVersion, flipFuses, getCurrentFuseWire } from '@electron/fuses';

export const fuses = {
  [FuseV1Options.RunAsNode]: false, // the worker is a utility process, which needs no second Node
  [FuseV1Options.EnableCookieEncryption]: true,
  [FuseV1Options.EnableNodeOptionsEnvironmentVariable]: false,
  [FuseV1Options.EnableNodeCliInspectArguments]: false,
  [FuseV1Options.EnableEmbeddedAsarIntegrityValidation]: true,
  [FuseV1Options.OnlyLoadAppFromAsar]: true,
  [FuseV1Options.LoadBrowserProcessSpecificV8Snapshot]: false, // there is no snapshot of ours
  [FuseV1Options.GrantFileProtocolExtraPrivileges]: false, // the page comes by a protocol of its own
  [FuseV1Options.WasmTrapHandlers]: true, // as Electron has it: without them memory of WebAssembly is checked by code
};

/** @throws Error where the binary has other fuses than these nine, or does not keep them. */
export async function setFuses(binary) {
  // Apple's processors start nothing whose signature does not fit: an ad-hoc one is renewed.
  const resetAdHocDarwinSignature = process.platform === 'darwin';
  await flipFuses(binary, {
    version: FuseVersion.V1,
    strictlyRequireAllFuses: true,
    resetAdHocDarwinSignature,
    ...fuses,
  });
  const wire = await getCurrentFuseWire(binary);
  for (const [fuse, isOn] of Object.entries(fuses)) {
    const wanted = isOn ? FuseState.ENABLE : FuseState.DISABLE;
    if (wire[fuse] !== wanted) throw new Error(`${binary} does not keep the fuse ${FuseV1Options[fuse]}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [binary] = process.argv.slice(2);
  if (binary === undefined) {
    process.stderr.write('expected the binary of a packaged Electron but received nothing\n');
    process.exit(2);
  }
  await setFuses(binary);
  for (const [fuse, isOn] of Object.entries(fuses))
    process.stdout.write(`${isOn ? 'on ' : 'off'} ${FuseV1Options[fuse]}\n`);
}
