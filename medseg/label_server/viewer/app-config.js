// OHIF's configuration, served by medseg label in the place of MONAI Label's.
(() => {
  "use strict";
  const root = "/proxy/dicom/wado";

  // MONAI Label's panel expects port 8000, or the server that it was told of last; cookies know no
  // ports, so that may be another one on the same machine.
  document.cookie = `MONAILABEL_SERVER_URL=${location.origin}/;path=/;SameSite=Strict`;

  // --- what medseg knows of the study -----------------------------------------------------

  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  // Texts are only ever set as texts: a warning can say anything.
  const showCases = (cases) => {
    document.getElementById("medseg-panel")?.remove();
    if (!cases.length) return;
    const panel = make("details", "", document.body);
    panel.id = "medseg-panel";
    panel.open = cases.some((one) => one.needs_review);
    Object.assign(panel.style, {
      position: "fixed", right: "8px", bottom: "8px", zIndex: 40, width: "268px",
      maxHeight: "45vh", overflow: "auto", padding: "8px 10px", borderRadius: "6px",
      font: "13px/1.4 system-ui, sans-serif", color: "#e4e9ef", background: "#0b1a42",
      border: "1px solid #2f4f9a", overflowWrap: "anywhere",
    });
    const summary = make("summary", cases.map((one) => one.text || one.state).join("; "), panel);
    Object.assign(summary.style, { cursor: "pointer", fontWeight: 600 });
    for (const one of cases) {
      make("div", [one.title, one.state, one.version].filter(Boolean).join(" · "), panel);
      for (const note of one.notes) {
        const line = make("div", note, panel);
        Object.assign(line.style, { borderLeft: "3px solid #d9a13c", paddingLeft: "8px",
          margin: "6px 0" });
      }
      const link = make("a", "work list", panel);
      link.href = one.link;
      link.style.textDecoration = "underline";
    }
  };

  const askForCases = async () => {
    const study = new URLSearchParams(location.search).get("StudyInstanceUIDs") || "";
    const answers = await Promise.all(study.split(",").filter(Boolean).map(async (uid) => {
      const answer = await fetch(`/medseg/studies/${encodeURIComponent(uid)}`);
      return answer.ok ? answer.json() : [];
    }));
    return answers.flat();
  };

  // --- the proposal or the last correction, ready for the brush -----------------------------

  let opening = 0;

  const openSegmentation = (services, cases) => {
    const { displaySetService, viewportGridService } = services;
    const wanted = cases.map((one) => one.segmentation).filter(Boolean);
    if (!wanted.length) return;
    const open = () => {
      const found = displaySetService.getActiveDisplaySets()
        .find((set) => set.Modality === "SEG" && wanted.includes(set.SOPInstanceUID));
      const viewport = viewportGridService.getActiveViewportId();
      if (!found || !viewport) return false;
      viewportGridService.setDisplaySetsForViewport({
        viewportId: viewport,
        displaySetInstanceUIDs: [found.displaySetInstanceUID],
      });
      return true;
    };
    // The series are listed, and laid out, some time after the mode was entered.
    let tries = 0;
    clearInterval(opening);
    opening = setInterval(() => {
      tries += 1;
      const isShown = document.querySelector("[data-cy=viewport-pane] canvas");
      if ((isShown && open()) || tries > 240) clearInterval(opening);
    }, 500);
  };

  // --- storing a segmentation ---------------------------------------------------------------

  // OHIF 3.10 calls the command without the data source that it stores to.
  const mendStoring = ({ servicesManager, commandsManager, extensionManager }) => {
    const { uiNotificationService } = servicesManager.services;
    const former = commandsManager.getCommand("storeSegmentation", "SEGMENTATION");
    if (!former || former.isMended) return;
    const say = (type, message) =>
      uiNotificationService.show({ title: "Segmentation", message, type, duration: 6000 });
    const commandFn = async (asked) => {
      try {
        const [dataSource] = extensionManager.getActiveDataSource();
        const stored = await former.commandFn({ ...asked, dataSource });
        if (stored) say("success", "Stored in the DICOM server; it is a correction of the case now.");
        return stored;
      } catch (error) {
        console.warn(error);
        say("error", "The segmentation was not stored. Try again, or ask who runs the server.");
      }
    };
    commandsManager.registerCommand("SEGMENTATION", "storeSegmentation",
      { ...former, commandFn, isMended: true });
  };

  let managers;

  const extension = {
    id: "@medseg/label",
    preRegistration: (given) => { managers = given; },
    // By now the extensions of the mode have registered their commands.
    onModeEnter: async () => {
      try {
        mendStoring(managers);
        const cases = await askForCases();
        showCases(cases);
        if (location.pathname.includes("/segmentation")) {
          openSegmentation(managers.servicesManager.services, cases);
        }
      } catch (error) {
        console.warn(error);
      }
    },
    onModeExit: () => {
      clearInterval(opening);
      document.getElementById("medseg-panel")?.remove();
    },
  };

  window.config = {
    routerBasename: "/ohif/",
    showStudyList: true,
    extensions: [extension],
    modes: [],
    showWarningMessageForCrossOrigin: true,
    showCPUFallbackMessage: true,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    defaultDataSourceName: "dicomweb",
    useSharedArrayBuffer: "FALSE",
    dataSources: [
      {
        namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
        sourceName: "dicomweb",
        configuration: {
          friendlyName: "DICOMweb server",
          name: "DICOMweb",
          wadoUriRoot: root,
          qidoRoot: "/proxy/dicom/qido",
          wadoRoot: root,
          qidoSupportsIncludeField: true,
          supportsReject: true,
          imageRendering: "wadors",
          thumbnailRendering: "wadors",
          enableStudyLazyLoad: false,
          supportsFuzzyMatching: true,
          supportsWildcard: true,
          dicomUploadEnabled: true,
          bulkDataURI: { enabled: true },
        },
      },
    ],
  };
})();
